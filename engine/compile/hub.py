"""Asks the Hugging Face hub which commit a branch or tag names now: only to tell the user, never to decide anything."""

import json
import os

SECONDS = 5.0


def commit_of(dataset: str, revision: str) -> str | None:
    """The commit that REVISION of a data set names now; None where the hub does not say so quickly."""
    import urllib.request
    from urllib.parse import quote

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(f"{endpoint}/api/datasets/{dataset}/revision/{quote(revision, safe='')}", timeout=SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    commit = found.get("sha") if isinstance(found, dict) else None
    return commit if isinstance(commit, str) else None
