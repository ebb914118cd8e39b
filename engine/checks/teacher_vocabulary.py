"""Checks whether students and their teachers have the same vocabulary, as far as the files of both tokenizers are here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.core.errors import Problem, UserError
from engine.core.graph import Graph, Step
from stages import fetch, logits, vocabulary
from stages.tokens import FAST
from stages.tokens.vocabularies import OTHER_VOCABULARY, difference, vocabulary_of


def unlike_vocabularies(graph: Graph, root: Path) -> list[Problem]:
    """A problem for each teacher whose tokens are not those of its student, without duplicates.

    Tokenizers that are not available yet are skipped; the step that computes what the teacher predicts checks them again, before it does.
    """
    found = [problem for step in graph if step.kind is logits.KIND for problem in _problems(step, graph, root)]
    return list(dict.fromkeys(found))


def _problems(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    try:
        student, teacher = (_known(step, f"{whose}/", graph, root) for whose in ("student", "teacher"))
    except UserError as error:
        yield from error.problems
        return
    if student is None or teacher is None:
        return
    found = difference(student.ids, teacher.ids)
    if student.added or teacher.added:
        # The step that adds tokens gives them their ids.
        found = _lacking({*student.ids, *student.added}, {*teacher.ids, *teacher.added})
    if found:
        yield Problem(f"the teacher's vocabulary is not the student's: {found}", step.locate(("teacher",)), OTHER_VOCABULARY)


def _lacking(student: set[str], teacher: set[str]) -> str | None:
    """The first token that only one of both has; None if they have the same."""
    token = min(student ^ teacher, default=None)
    return None if token is None else f"{token!r} is a token of the {'student' if token in student else 'teacher'} alone"


@dataclass(frozen=True)
class _Known:
    ids: Mapping[str, int]
    """The vocabulary in files that are here."""
    added: tuple[str, ...] = ()
    """The special tokens that a spec adds."""


def _known(step: Step, prefix: str, graph: Graph, root: Path) -> _Known | None:
    """What is known of the tokenizer whose files STEP reads in roles with PREFIX; None if they are not here, or may be written again."""
    files = {role.removeprefix(prefix): item for role, item in step.inputs.items() if role.startswith(prefix)}
    producer = next((graph[item.producer] for item in files.values() if item.producer), None)
    if producer and isinstance(producer.parameters, vocabulary.Parameters):
        before = _known(producer, "tokenizer/", graph, root)
        return before and replace(before, added=(*before.added, *producer.parameters.special_tokens))
    paths = {name: root / item.path for name, item in files.items()}
    if (producer and producer.kind is not fetch.KIND) or not all(path.is_file() for path in paths.values()):
        return None
    if FAST not in paths:
        # A Python tokenizer, which only transformers can load.
        return None
    return _Known(vocabulary_of(paths[FAST]))
