"""How a chat endpoint is asked: requests, the cache of paid answers, limits, retries, batches, and what an answer is worth."""
