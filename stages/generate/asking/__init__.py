"""Client of chat endpoints: requests, the cache of paid answers, limits, retries, batches, and validation of answers."""
