"""Turns the needs of a task's parameters into inputs of its step: files, rows of other tasks, pairs, and models on the hub."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.compile.hub import commit_of
from engine.core.errors import Location, Problem, UserError, did_you_mean
from engine.core.graph import Input, Step
from engine.core.part import Need, Part
from stages.generate.sources.hub import COMMIT, Hub

if TYPE_CHECKING:
    from engine.spec.sections import Spec

Locate = Callable[[tuple[str | int, ...]], Location | None]


@dataclass(frozen=True)
class Makers:
    """Functions that return the producers of inputs."""

    divided: Callable[[str], Step]
    """The split step of another task."""
    fetched: Callable[[tuple[str, str], Location], Step]
    """The step that fetches a model from the hub, by id and revision."""
    paired: Callable[[Need, Location | None], Step]
    """The step that makes pairs and scores answers, which a need names."""


def needed_by(
    spec: "Spec", parameters: Part, locate: Locate, chain: tuple[str, ...], makers: Makers
) -> tuple[dict[str, Input], list[Problem]]:
    """The inputs by role (the part's place), and their problems.

    CHAIN holds the tasks that depend on these rows.
    """
    found: dict[str, Input] = {}
    problems: list[Problem] = []
    for place, part in parameters.placed():
        if isinstance(part, Hub) and not COMMIT.fullmatch(part.revision):
            problems.append(_unpinned(part, locate((*place, "revision"))))
        for need in part.needs():
            role = "/".join(str(key) for key in (*place, *([need.name] if need.name else [])))
            found[role] = _needed(spec, need, locate((*place, *need.field)), chain, makers)
    return found, problems


def _unpinned(source: Hub, where: Location | None) -> Problem:
    """The problem with a branch or tag as revision: the rows could change without a change in the workspace."""
    now = commit_of("dataset", source.id, source.revision)
    hint = f'set the current commit, with engine pin or by hand: revision = "{now}"' if now else "set the current commit with: engine pin"
    return Problem(f"revision of {source.id} must be a full commit hash (40 hex digits), got '{source.revision}'", where, hint)


def _needed(spec: "Spec", need: Need, where: Location | None, chain: tuple[str, ...], makers: Makers) -> Input:
    if need.model is not None:
        assert where is not None
        return makers.fetched(need.model, where).output()
    if need.pairs is not None:
        return makers.paired(need, where).output(need.file)
    if need.task is None:
        assert need.path is not None
        return Input(need.path, where=where)
    if need.task in chain:
        cycle = " -> ".join((*chain[chain.index(need.task) :], need.task))
        raise UserError(f"tasks read each other's rows in a cycle: {cycle}", where, "let one of them read another source")
    if need.task not in spec.experiment.tasks:
        raise UserError(f"this spec has no task '{need.task}'", where, did_you_mean(need.task, spec.experiment.tasks))
    step = makers.divided(need.task)
    return step.output(f"{need.split}.jsonl") if need.split else step.inputs["rows"]
