"""Collects the data of the report from the plan, metrics, plots, provenance, token files and predictions."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from engine.artifacts.history import Changes, compare, state_at, working_state
from engine.core.errors import UserError
from engine.core.graph import Graph
from engine.dvc import git
from engine.dvc.run_records import RunRecord
from engine.identity.provenance import Provenance, from_statement
from engine.plan.cost_memo import costs_of
from engine.plan.project import Project
from engine.results.sweeps import Sweep, sweeps
from engine.results.table import Result, method_name, results

if TYPE_CHECKING:
    from engine.spec.sections import Spec

ROWS_SHOWN = 3
"""Number of sample rows of each task."""


@dataclass(frozen=True)
class Node:
    """One step: its plan action, and the results of its last run."""

    name: str
    kind: str
    action: str
    producers: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    """By role: a path, relative to the workspace or absolute."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None
    ran: RunRecord | None = None
    """The record of the run that made the artifact, on whichever machine."""
    plots: str | None = None
    estimated_bytes: float | None = None
    """Estimated peak memory of a training."""


@dataclass(frozen=True)
class Trained:
    """One experiment: its spec and what it trains, if anything."""

    name: str
    spec: str
    tasks: tuple[str, ...]
    method: str
    step: str
    """The step that trains it, which several points of a sweep may share; without a training, the one that evaluates it."""


@dataclass(frozen=True)
class ReportData:
    """The data of the report."""

    root: Path
    nodes: Mapping[str, Node]
    experiments: Sequence[Trained]
    results: Sequence[Result] = ()
    sweeps: Sequence[Sweep] = ()
    changes: Changes | None = None
    """What the working tree has that the last commit has otherwise; None without a commit that can be read."""

    def of(self, kind: str) -> list[Node]:
        """The steps of KIND, in plan order."""
        return [node for node in self.nodes.values() if node.kind == kind]

    def built(self, kind: str) -> list[Node]:
        """The steps of KIND that have metrics."""
        return [node for node in self.of(kind) if node.metrics]


def gather(project: Project, paths: Sequence[Path]) -> ReportData:
    """The data of the specs at PATHS; of all specs if PATHS is empty."""
    store, specs = project.store(), project.chosen(paths)
    graph = project.select([str(path) for path in paths]).graph
    plan = project.plan(graph, store)
    costs = costs_of(project, plan, store)
    nodes = {}
    for step in graph:
        memory = (costs.steps.get(step.name) or {}).get("memory") or {}
        nodes[step.name] = Node(
            name=step.name,
            kind=step.kind_name,
            action=str(plan[step.name].action),
            producers=step.producers,
            inputs={role: item.path for role, item in step.inputs.items()},
            metrics=store.metrics(step.metrics),
            provenance=from_statement(store.metrics(step.provenance)),
            ran=store.ran(step),
            plots=step.plots,
            estimated_bytes=memory.get("total"),
        )
    found = results(specs, graph, store, plan)
    trained = [_trained(spec, graph) for spec in specs]
    return ReportData(
        project.root, nodes, trained, found, sweeps(specs, found, graph, store, plan), _since_the_commit(project, bool(paths))
    )


def _since_the_commit(project: Project, selected: bool) -> Changes | None:
    """The differences from the last commit; if only some specs are SELECTED, without steps that no spec has any more."""
    try:
        before = state_at(project.root, git.commit_of(project.root, "HEAD"))
        found = compare(before, working_state(project), project.store())
    except UserError:
        return None
    return replace(found, removed=()) if selected else found


def _trained(spec: "Spec", graph: Graph) -> Trained:
    values = spec.experiment
    step = graph[f"{'train' if values.training else 'evaluate'}-{spec.name}"].name
    return Trained(spec.name, spec.path, values.mixture.tasks if values.mixture else (), method_name(spec), step)


def losses(root: Path, node: Node) -> dict[str, list[tuple[float, float]]]:
    """The loss curves of a training: optimizer step and loss, by column of its plot."""
    return {name: points for name, points in _curves(root, node).items() if name.startswith(("loss", "validation_loss"))}


def measures(root: Path, node: Node) -> dict[str, list[tuple[float, float]]]:
    """What the objective of a training measured besides the loss: optimizer step and value, by column of its plot."""
    others = ("step", "loss", "validation_loss", "learning_rate", "grad_norm")
    return {name: points for name, points in _curves(root, node).items() if not name.startswith(others)}


def _curves(root: Path, node: Node) -> dict[str, list[tuple[float, float]]]:
    """Optimizer step and value by column of a training's plot."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in _table(root, node):
        for name in row:
            if row[name]:
                found.setdefault(name, []).append((float(row["step"]), float(row[name])))
    return found


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """POINTS, each with the mean of its neighbours: of a thirtieth of all points before it and after it; at most 600, evenly chosen."""
    reach, count = len(points) // 30, min(len(points), 600)
    values = [value for _, value in points]
    chosen = [round(number * (len(points) - 1) / max(1, count - 1)) for number in range(count)]
    return [(points[place][0], fmean(values[max(0, place - reach) : place + reach + 1])) for place in chosen]


def scores(root: Path, node: Node) -> list[dict[str, str]]:
    """Every value of an evaluation's plot: model, task, metric, value, low, high."""
    return [row for row in _table(root, node) if {"score", "model", "task", "metric", "value"} <= row.keys()]


def _table(root: Path, node: Node) -> list[dict[str, str]]:
    path = root / node.plots if node.plots else None
    if path is None or not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predictions(root: Path, path: str, rows: int | None = None) -> Iterator[dict[str, Any]]:
    """The first ROWS rows of a file of predictions; none if it does not exist."""
    file = root / path
    if file.exists():
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, islice(lines, rows))


def row_lengths(data: ReportData, node: Node) -> list[int]:
    """The length in tokens of each row of a token file; empty if the file is missing."""
    tokens = data.root / "artifacts" / node.name / "train.safetensors"
    if not tokens.exists():
        return []
    from stages.tokens.files import Tokens

    lengths: list[int] = Tokens.open(tokens).lengths.tolist()
    return lengths


TOKENS_SHOWN = 400
"""Tokens of each row that are shown."""
_UNFINISHED = "\ufffd"
"""What decoding writes for bytes that are part of a character."""
_LONGEST_PART = 8
"""Tokens that may together be one character; what is no text after so many is none."""


@dataclass(frozen=True)
class Tokenized:
    """The first tokens of a row, as text."""

    pieces: list[tuple[str, bool]]
    """Adjacent tokens that are supervised alike, or not, are one piece."""
    more: int
    """How many tokens follow."""


def token_rows(data: ReportData, node: Node) -> list[Tokenized] | None:
    """The first rows of a token file as text, with what is supervised; None if the file or its tokenizer is missing."""
    tokens = data.root / "artifacts" / node.name / "train.safetensors"
    tokenizer = next((data.root / path for path in node.inputs.values() if path.endswith("tokenizer.json")), None)
    if tokenizer is None or not tokenizer.exists() or not tokens.exists():
        return None
    from tokenizers import Tokenizer

    from stages.tokens.files import Tokens

    encoder, found = Tokenizer.from_file(str(tokenizer)), Tokens.open(tokens)
    decode = partial(encoder.decode, skip_special_tokens=False)
    rows = []
    for number in range(min(ROWS_SHOWN, len(found))):
        ids, learned = found.row(number)
        shown = ids[:TOKENS_SHOWN].tolist()
        rows.append(Tokenized(_pieces(shown, [bool(one) for one in learned[:TOKENS_SHOWN]], decode), len(ids) - len(shown)))
    return rows


def _pieces(ids: Sequence[int], learned: Sequence[bool], decode: Callable[[Sequence[int]], str]) -> list[tuple[str, bool]]:
    """The text of IDS in pieces that are LEARNED or not; a character of several tokens is, if any of these is.

    Each token is decoded behind those before it: alone, it has neither the space that a decoder strips from the first word nor the other
    bytes of its character.
    """
    found: list[tuple[str, bool]] = []
    before, start = 0, 0
    for place in range(len(ids)):
        text = decode(ids[before : place + 1])
        is_part = text.endswith(_UNFINISHED) and place + 1 - start < _LONGEST_PART and place + 1 < len(ids)
        if is_part:
            continue
        added, supervised = text[len(decode(ids[before:start])) :], any(learned[start : place + 1])
        if found and found[-1][1] == supervised:
            found[-1] = found[-1][0] + added, supervised
        else:
            found.append((added, supervised))
        before, start = start, place + 1
    return found
