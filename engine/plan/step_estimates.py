"""The size, cost and duration of a step before it runs, from records and model configurations."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.core.graph import Graph, Step
from engine.dvc.run_records import RunRecord
from engine.dvc.store import Store
from engine.estimate.training import Estimate, gigabytes, shortage, too_large
from engine.plan.decide import Action, Plan
from engine.plan.mixture_sizes import expected_rows, expected_shares
from engine.plan.recorded_sizes import recorded_sizes, rounded
from engine.plan.teacher_requests import TeacherRequests, requests_of
from engine.plan.training_inputs import estimate_of, parameters_of
from stages import export, logits, mix, train


@dataclass(frozen=True)
class Facts:
    """Facts about a step: sizes as text, the seconds that it will take, and the estimate of a training."""

    sizes: tuple[str, ...] = ()
    seconds: float | None = None
    """Those of the last run on this machine; of a training, for as many optimizer steps as it will take now."""
    last_seconds: float | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    estimate: Estimate | None = None
    asking: TeacherRequests | None = None

    def as_data(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`; sizes in bytes."""
        return {
            "sizes": list(self.sizes),
            "seconds": self.seconds,
            "last_seconds": self.last_seconds,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "memory": self.estimate.as_data() if self.estimate else None,
            "disk": self.estimate.disk if self.estimate else None,
            "asking": self.asking.as_data() if self.asking else None,
            "resumes": None,
        }


def facts_of(step: Step, plan: Plan, graph: Graph, store: Store) -> Facts:
    """The facts about STEP: from its metrics if it is kept or restored, else from its inputs."""
    last = _seconds(store.ran(step))
    estimate = estimate_of(step, graph, plan, store) if step.kind is train.KIND else None
    if plan[step.name].action in (Action.KEEP, Action.RESTORE):
        metrics = store.metrics(step.metrics)
        return Facts(
            recorded_sizes(step.kind, metrics), last, last, metrics.get("parameters"), metrics.get("trainable_parameters"), estimate
        )
    if step.kind is export.KIND:
        sizes = _expected_export(step, graph, plan, store)
    else:
        sizes = _expected_logits(step, graph, plan, store) if step.kind is logits.KIND else _expected(step, graph, plan, store)
    seconds = last * _as_many_steps(step, graph, plan, store) if last else last
    if estimate is None:
        return Facts(sizes, seconds, last)
    return Facts((*sizes, *_cost(estimate)), seconds, last, estimate.parameters, estimate.trainable, estimate)


def with_requests(facts: Mapping[str, Facts], plan: Plan, graph: Graph, root: Path) -> dict[str, Facts]:
    """FACTS with the requests to chat teachers added; counting them may generate a task's rows."""
    asked = {name: requests_of(graph[name], graph, plan, root) for name in facts}
    return {
        name: replace(fact, sizes=(*fact.sizes, *found.words), asking=found) if (found := asked[name]) else fact
        for name, fact in facts.items()
    }


def _seconds(ran: RunRecord | None) -> float | None:
    """Seconds of the last run, if it was on this machine; durations of other machines do not carry over."""
    if ran is None:
        return None
    machine = ran.machine
    here = machine.get("platform") == platform.platform() and machine.get("cores") == os.cpu_count()
    return ran.measured.get("seconds") if here else None


def _as_many_steps(step: Step, graph: Graph, plan: Plan, store: Store) -> float:
    """How many times the optimizer steps of its last run a training will take; 1 if it may stop early, or one of both is not known."""
    if not isinstance(step.parameters, train.Parameters):
        return 1.0
    if step.parameters.validation and step.parameters.validation.patience is not None:
        return 1.0
    before, now = store.metrics(step.metrics).get("steps"), _steps(step, graph, plan, store)
    return now[0] / before if now and before else 1.0


def _cost(estimate: Estimate) -> tuple[str, ...]:
    """Parameters and memory as text; `at most` if the vocabulary, `at max_length` if the longest row is not known yet."""
    matter = estimate.matter
    total = f"{'' if matter.exact_model else 'at most '}{rounded(estimate.parameters)}"
    memory = f"~{gigabytes(estimate.memory.total)}{'' if matter.measured_length else ' at max_length'}"
    return f"{rounded(estimate.trainable)} trainable of {total}", memory


def shortages(plan: Plan, facts: Mapping[str, Facts], limits: Mapping[str, float]) -> list[str]:
    """One message per training that may run and does not fit the device memory stated in its spec."""
    return [
        shortage(name, estimate, limits[name])
        for name in _limited(plan, limits)
        if (estimate := facts[name].estimate) and too_large(estimate, limits[name])
    ]


def unchecked(plan: Plan, facts: Mapping[str, Facts], limits: Mapping[str, float]) -> list[str]:
    """The trainings that may run and whose memory cannot be estimated until their base model is available."""
    return [name for name in _limited(plan, limits) if facts[name].estimate is None]


def _limited(plan: Plan, limits: Mapping[str, float]) -> list[str]:
    return [d.name for d in plan.decisions if d.name in limits and d.action in (Action.RUN, Action.MAYBE)]


def _expected_export(step: Step, graph: Graph, plan: Plan, store: Store) -> tuple[str, ...]:
    """The approximate size of an export's files, if its model is available."""
    assert isinstance(step.parameters, export.Parameters)
    parameters = parameters_of(step.inputs["model"], graph, plan, store)
    return (f"~{gigabytes(parameters * step.parameters.into.bits / 8)} on disk",) if parameters else ()


def _expected_logits(step: Step, graph: Graph, plan: Plan, store: Store) -> tuple[str, ...]:
    """The bytes that a teacher's predictions take for each supervised token and, if the tokens are counted already, in all."""
    from stages.tokens.top_logps import bytes_per_position  # imports numpy, which a plan without such a step does not need

    assert isinstance(step.parameters, logits.Parameters)
    each = bytes_per_position(step.parameters.top_k)
    tokens = graph[str(step.inputs["train"].producer)]
    counted = store.metrics(tokens.metrics) if plan[tokens.name].action in (Action.KEEP, Action.RESTORE) else {}
    supervised = sum(part.get("supervised_tokens", 0) for part in counted.values() if isinstance(part, dict))
    return (f"{each:,} bytes per supervised token", *((f"~{gigabytes(each * supervised)} on disk",) if supervised else ()))


def _expected(step: Step, graph: Graph, plan: Plan, store: Store) -> tuple[str, ...]:
    """Expected sizes as text: the shares of a mixture if its tasks' sizes are known, the optimizer steps of a training if its rows are."""
    if step.kind is mix.KIND:
        return expected_shares(step, graph, store)
    found = _steps(step, graph, plan, store) if step.kind is train.KIND else None
    return (f"{found[0]:,} steps of {found[1]}",) if found else ()


def _steps(step: Step, graph: Graph, plan: Plan, store: Store) -> tuple[int, str] | None:
    """The optimizer steps of a training, and what is in each; None if the rows of its mixture are not known yet."""
    order = graph[str(step.inputs["order"].producer)]
    parameters = order.parameters
    assert isinstance(parameters, mix.Parameters) and isinstance(step.parameters, train.Parameters)
    unit = "rows" if parameters.bin_tokens is None else "bins"
    # The metrics of a mixture that will be built anew are those of the one before.
    is_built = plan[order.name].action is Action.KEEP
    rows = parameters.rows or (store.metrics(order.metrics).get(unit) if is_built else expected_rows(order, graph, store))
    batch = step.parameters.global_batch.rows
    return (-(-rows // batch), f"{batch} {unit}") if isinstance(rows, int) else None
