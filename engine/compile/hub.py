"""Asks the Hugging Face hub which commit a branch or tag names now: only to tell the user, never to decide anything."""

import json
import os
from typing import Literal

SECONDS = 5.0


def commit_of(repository: Literal["model", "dataset"], name: str, revision: str) -> str | None:
    """The commit that REVISION of the repository NAME (`user/name`) names now; None where the hub does not say so within SECONDS.

    HF_TOKEN is sent where it is set: gated and private repositories need it.
    """
    import urllib.request
    from urllib.parse import quote

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        return None
    try:
        url = f"{endpoint}/api/{repository}s/{name}/revision/{quote(revision, safe='')}"
        token = os.environ.get("HF_TOKEN")
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    commit = found.get("sha") if isinstance(found, dict) else None
    return commit if isinstance(commit, str) else None
