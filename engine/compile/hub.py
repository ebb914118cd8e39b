"""Resolves a branch or tag on the Hugging Face hub to a commit: for hints and `engine pin`."""

import json
import os
from typing import Literal

SECONDS = 5.0


def commit_of(repository: Literal["model", "dataset"], name: str, revision: str) -> str | None:
    """The commit that REVISION of the repository NAME (`user/name`) refers to now; None if the hub does not answer within SECONDS.

    Sends HF_TOKEN if it is set, which gated and private repositories need.
    """
    import urllib.request
    from urllib.parse import quote

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        return None
    url = f"{endpoint}/api/{repository}s/{name}/revision/{quote(revision, safe='')}"
    token = os.environ.get("HF_TOKEN")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    commit = found.get("sha") if isinstance(found, dict) else None
    return commit if isinstance(commit, str) else None
