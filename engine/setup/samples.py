"""Small files of rows for `engine init --template`, which show what rows of the user's own look like."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

_PLACES = ("the office", "the lobby", "room 7", "the warehouse", "the canteen", "the workshop")
_TROUBLES = {
    "hardware": ("The printer in {} shows E5.", "The screen in {} stays black.", "The scanner in {} is noisy.", "A cable in {} is torn."),
    "network": ("No signal in {}.", "The network in {} is slow.", "Calls from {} break off.", "Nothing loads in {} since noon."),
    "accounts": ("I forgot my password in {}.", "My badge for {} is blocked.", "I cannot log in from {}.", "My account in {} expired."),
}
_ADVICE = {
    "hardware": "Please switch it off and on again; a technician comes today.",
    "network": "We are looking into it; try the other network meanwhile.",
    "accounts": "Please answer the question that we have sent you, then try again.",
}


def _tickets() -> Iterator[tuple[str, str, str]]:
    """A place, a ticket and its team."""
    for place, (team, troubles) in product(_PLACES, _TROUBLES.items()):
        for trouble in troubles:
            yield place, trouble.format(place), team


def _chats() -> Iterator[dict[str, Any]]:
    for number, (place, ticket, team) in enumerate(_tickets()):
        turns = [("user", ticket), ("assistant", _ADVICE[team])]
        if number % 3 == 0:
            turns += [("user", "Is that all?"), ("assistant", f"Yes. We write to you when {place} is fine again.")]
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def _labels() -> Iterator[dict[str, Any]]:
    for _, ticket, team in _tickets():
        yield {"text": ticket, "label": team}


def _summaries() -> Iterator[dict[str, Any]]:
    for place, ticket, team in _tickets():
        text = f"Dear team, I write to you from {place}. {ticket} It was like that yesterday too. {_ADVICE[team]} That is what I was told."
        yield {"text": text, "summary": f"{team.capitalize()}: {ticket}"}


def _pairs() -> Iterator[dict[str, Any]]:
    for _, ticket, team in _tickets():
        yield {"prompt": ticket, "chosen": _ADVICE[team], "rejected": "That is not our business."}


_ROWS: Mapping[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "chat": _chats,
    "classify": _labels,
    "summarize": _summaries,
    "preferences": _pairs,
}
TEMPLATES = tuple(_ROWS)
"""The names of the templates."""


def sample(template: str) -> str:
    """Rows for TEMPLATE, as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _ROWS[template]())
