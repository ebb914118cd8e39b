"""Forms of names on the Hugging Face hub."""

HUB_ID, COMMIT_HASH = r"^[\w.-]+(/[\w.-]+)?$", r"^[0-9a-f]{40}$"
