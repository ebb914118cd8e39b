"""Built models behind an OpenAI-compatible API: what a request means, the process that answers, and the server."""
