"""(Plan, Graph) -> why a step would run: its own reasons, those of the steps it follows, and the root causes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.graph import Graph
from engine.dvc import dvcfile
from engine.plan.decide import Action, Decision, Plan, Reason

HARMLESS = ("code", "revision", "environment")
"""Causes that a person may know to be harmless; a recipe or an input never is."""
_NAMED_STEPS = 4
"""How many steps a root cause names before it counts the rest."""
_VERBS = {Action.RUN: "would run", Action.MAYBE: "may run", Action.RESTORE: "would be restored"}


@dataclass(frozen=True)
class Link:
    """A step of the chain, and how far it lies above the step that was asked for."""

    depth: int
    decision: Decision


@dataclass(frozen=True)
class Cause:
    """A reason that no other step explains, and the steps that it holds for."""

    reason: Reason
    steps: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.steps) - _NAMED_STEPS
        names = ", ".join(self.steps[:_NAMED_STEPS]) + (f" and {more} more" if more > 0 else "")
        return f"{names}: {self.reason}" + (f" ({self.reason.where})" if self.reason.where else "")


@dataclass(frozen=True)
class Explanation:
    """The chain from a step up to what nothing explains further."""

    links: tuple[Link, ...]
    causes: tuple[Cause, ...]

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        decision = self.links[0].decision
        if decision.action is Action.KEEP:
            return f"{decision.name} is up to date: its recipe, code, environment, inputs and outputs are as recorded"
        word = "root cause" if len(self.causes) == 1 else "root causes"
        return f"{decision.name} {_VERBS[decision.action]}; {word}: {'; '.join(map(str, self.causes))}"

    def lines(self) -> Iterator[tuple[str, str]]:
        """The chain as indented lines, each with the place in the specs that it comes from."""
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
    """The step that TARGET means: itself, or the training of the experiment of that name."""
    training = f"train-{target}"
    return graph[training].name if target not in graph and training in graph else target


def check_step(name: str, graph: Graph) -> None:
    """Raise UserError where GRAPH has no step NAME."""
    if name not in graph:
        raise UserError(f"there is no step '{name}'", hint=did_you_mean(name, [step.name for step in graph]))


def explain(name: str, plan: Plan, graph: Graph) -> Explanation:
    """Why PLAN decides so for the step NAME, or the training of the experiment NAME; raises UserError where there is neither."""
    if name != dvcfile.RESOLVE:
        name = step_name(name, graph)
        check_step(name, graph)
    decisions = {decision.name: decision for decision in plan.decisions}
    links = tuple(_chain(name, decisions, graph))
    return Explanation(links, _causes(name, decisions))


def _chain(name: str, decisions: dict[str, Decision], graph: Graph) -> Iterator[Link]:
    """The step, then depth first every step above it that is not kept, each once; what is kept explains nothing."""
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
    """The reasons at the upper ends: those that follow no step which is itself not kept, the same ones put together."""
    found: dict[tuple[str, Location | None], Cause] = {}
    todo, seen = [name], {name}
    while todo:
        decision = decisions[todo.pop(0)]
        followed = [reason.subject for reason in decision.reasons if _follows(reason, decisions)]
        todo += [subject for subject in dict.fromkeys(followed) if subject not in seen]
        seen.update(followed)
        for reason in _own(decision.reasons):
            if not _follows(reason, decisions):
                # Values may be lists, which no dictionary takes as keys: the sentence stands for them.
                known = found.get((str(reason), reason.where), Cause(reason, ()))
                found[str(reason), reason.where] = Cause(known.reason, (*known.steps, decision.name))
    return tuple(found.values())


def _follows(reason: Reason, decisions: dict[str, Decision]) -> bool:
    producer = decisions.get(reason.subject) if reason.cause in ("upstream", "input") else None
    return producer is not None and producer.action is not Action.KEEP


def _own(reasons: Sequence[Reason]) -> list[Reason]:
    """That an earlier run is in the cache says where a result comes from, not why it is wanted."""
    return [reason for reason in reasons if reason.cause not in ("cached", "perhaps-cached")]


def acceptable(plan: Plan) -> list[str]:
    """The steps that run for nothing but changes of code or versions, as `accept` takes them; those below follow by themselves."""
    names: list[str] = []
    settled: set[str] = set()
    for decision in plan.decisions:
        own = [reason for reason in decision.reasons if reason.cause != "upstream"]
        followed = {reason.subject for reason in decision.reasons if reason.cause == "upstream"}
        if followed <= settled and all(reason.cause in HARMLESS for reason in own):
            settled.add(decision.name)
            names += [decision.name] if own else []
    return names
