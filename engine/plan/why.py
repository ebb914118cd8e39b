"""(Plan, Graph) -> why a step would run: its reasons, those of the steps it depends on, and the root causes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.graph import Graph
from engine.dvc import dvcfile
from engine.plan.decide import Action, Decision, Plan, Reason

HARMLESS = ("code", "revision", "environment")
"""Causes that a person may accept as harmless; a change of a recipe or an input never is."""
_NAMED_STEPS = 4
"""How many steps a root cause names before it counts the rest."""
_VERBS = {Action.RUN: "would run", Action.MAYBE: "may run", Action.RESTORE: "would be restored"}


@dataclass(frozen=True)
class Link:
    """A step of the chain, and its distance upstream of the explained step."""

    depth: int
    decision: Decision


@dataclass(frozen=True)
class Cause:
    """A reason that comes from no other step, and the steps that have it."""

    reason: Reason
    steps: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.steps) - _NAMED_STEPS
        names = ", ".join(self.steps[:_NAMED_STEPS]) + (f" and {more} more" if more > 0 else "")
        return f"{names}: {self.reason}" + (f" ({self.reason.where})" if self.reason.where else "")


@dataclass(frozen=True)
class Explanation:
    """The chain from a step up to its root causes."""

    links: tuple[Link, ...]
    causes: tuple[Cause, ...]

    @property
    def sentence(self) -> str:
        """The explanation in one sentence."""
        decision = self.links[0].decision
        if decision.action is Action.KEEP:
            return f"{decision.name} is up to date: its recipe, code, environment, inputs and outputs are as recorded"
        word = "root cause" if len(self.causes) == 1 else "root causes"
        return f"{decision.name} {_VERBS[decision.action]}; {word}: {'; '.join(map(str, self.causes))}"

    def lines(self) -> Iterator[tuple[str, str]]:
        """The chain as indented lines, each with its location in the specs."""
        for link in self.links:
            indent = "  " * link.depth
            yield f"{indent}{link.decision.name}: {link.decision.action}", ""
            for reason in link.decision.reasons:
                yield f"{indent}  - {reason}", str(reason.where) if reason.where else ""

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        return {
            "step": self.links[0].decision.name,
            "chain": [{"depth": link.depth} | link.decision.as_data() for link in self.links],
            "root_causes": [cause.reason.as_data() | {"steps": list(cause.steps)} for cause in self.causes],
            "sentence": self.sentence,
        }


def step_name(target: str, graph: Graph) -> str:
    """The step that TARGET names: the step itself, or or the training (else the evaluation) of that experiment."""
    names = (target, f"train-{target}", f"evaluate-{target}")
    return next((name if name == target else graph[name].name for name in names if name in graph), target)


def check_step(name: str, graph: Graph) -> None:
    """Raise UserError if GRAPH has no step NAME."""
    if name not in graph:
        raise UserError(f"unknown step '{name}'", hint=did_you_mean(name, [step.name for step in graph]))


def explain(name: str, plan: Plan, graph: Graph) -> Explanation:
    """Explain PLAN's decision for the step NAME or the training of the experiment NAME; raises UserError if there is neither."""
    if name != dvcfile.RESOLVE:
        name = step_name(name, graph)
        check_step(name, graph)
    decisions = {decision.name: decision for decision in plan.decisions}
    links = tuple(_chain(name, decisions, graph))
    return Explanation(links, _causes(name, decisions))


def _chain(name: str, decisions: dict[str, Decision], graph: Graph) -> Iterator[Link]:
    """The step, then depth-first every upstream step that is not kept, each once."""
    seen: set[str] = set()
    todo = [(name, 0)]
    while todo:
        current, depth = todo.pop()
        decision = decisions[current]
        if current in seen or (depth and decision.action is Action.KEEP):
            continue
        seen.add(current)
        yield Link(depth, decision)
        if current in graph and decision.action is not Action.KEEP:
            todo += [(producer, depth + 1) for producer in reversed(graph[current].producers)]


def _causes(name: str, decisions: dict[str, Decision]) -> tuple[Cause, ...]:
    """The root causes: reasons that do not come from another step that is not kept; equal ones merged."""
    found: dict[tuple[str, Location | None], Cause] = {}
    todo, seen = [name], {name}
    while todo:
        decision = decisions[todo.pop(0)]
        followed = [reason.subject for reason in decision.reasons if _follows(reason, decisions)]
        todo += [subject for subject in dict.fromkeys(followed) if subject not in seen]
        seen.update(followed)
        for reason in _own(decision.reasons):
            if not _follows(reason, decisions):
                # Values may be lists, which are not hashable: the sentence is the key instead.
                known = found.get((str(reason), reason.where), Cause(reason, ()))
                found[str(reason), reason.where] = Cause(known.reason, (*known.steps, decision.name))
    return tuple(found.values())


def _follows(reason: Reason, decisions: dict[str, Decision]) -> bool:
    producer = decisions.get(reason.subject) if reason.cause in ("upstream", "input") else None
    return producer is not None and producer.action is not Action.KEEP


def _own(reasons: Sequence[Reason]) -> list[Reason]:
    """REASONS without those about the cache, which say where a result comes from, not why the step would run."""
    return [reason for reason in reasons if reason.cause not in ("cached", "perhaps-cached")]


def acceptable(plan: Plan) -> list[str]:
    """The steps that would run only because code or versions changed, as arguments of `engine accept`; downstream steps need none."""
    names: list[str] = []
    settled: set[str] = set()
    for decision in plan.decisions:
        own = [reason for reason in decision.reasons if reason.cause != "upstream"]
        followed = {reason.subject for reason in decision.reasons if reason.cause == "upstream"}
        if followed <= settled and all(reason.cause in HARMLESS for reason in own):
            settled.add(decision.name)
            names += [decision.name] if own else []
    return names
