"""Text as Markdown."""

import re

from engine.core.errors import visible


def inline(text: str) -> str:
    """TEXT, which may come from data, within a line of Markdown: markup escaped, line ends shown, and nothing that a terminal obeys."""
    flat = re.sub(r"\s*[\n\v\f\r\x85\u2028\u2029]\s*", " ↵ ", text)
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", visible(flat))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
