"""The vocabulary of a tokenizer, read from its files: which id each token has, and whether two tokenizers agree on it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError

OTHER_VOCABULARY = "choose a teacher with the student's tokenizer; from any other one, learn its answers: a task with a local teacher"
"""What to do where teacher and student have different vocabularies."""


def vocabulary_of(path: Path) -> dict[str, int]:
    """The id of each token, added tokens included, in a `tokenizer.json`; raises UserError if it is none.

    It is read without the tokenizers library, so that specs can be checked quickly.
    """
    try:
        description = json.loads(path.read_text("utf-8"))
        return _listed(description["model"]["vocab"]) | {token["content"]: token["id"] for token in description.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"this file is no tokenizer: {type(error).__name__}: {error}", Location(str(path))) from None


def _listed(vocabulary: Any) -> dict[str, int]:
    """The ids of a model's tokens: a table, or for Unigram a list of tokens with their scores."""
    if isinstance(vocabulary, dict):
        return dict(vocabulary)
    return {token: number for number, (token, _) in enumerate(vocabulary)}


def size_of(vocabulary: Mapping[str, int]) -> int:
    """Number of ids: the largest one and 1."""
    return max(vocabulary.values(), default=-1) + 1


def vocabulary_digest(vocabulary: Mapping[str, int]) -> str:
    """sha256 (64 hex digits) of all tokens with their ids."""
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()


def difference(student: Mapping[str, int], teacher: Mapping[str, int]) -> str | None:
    """The first id that does not stand for the same token in the vocabularies of a STUDENT and of its TEACHER; None if they are equal."""
    differing = set(student.items()) ^ set(teacher.items())
    if not differing:
        return None
    number = min(found for _, found in differing)
    said = []
    for whose, vocabulary in (("student", student), ("teacher", teacher)):
        token = next((token for token, found in vocabulary.items() if found == number and (token, found) in differing), None)
        said.append(f"is no token of the {whose}" if token is None else f"is {token!r} to the {whose}")
    return f"id {number} {' and '.join(said)}"
