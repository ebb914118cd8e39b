"""What the graph and its records say about a training before it runs: its model's configuration and its longest row."""

from collections.abc import Mapping
from typing import Any

from engine.core.graph import Graph, Input, Step
from engine.dvc.store import Store
from engine.estimate.configurations import configuration
from engine.estimate.models import model_of
from engine.estimate.training import Estimate, Matter, estimate
from engine.plan.decide import Action, Plan
from stages import dequantise, fetch, initialize, mix, tokenize, train


def estimate_of(step: Step, graph: Graph, plan: Plan, store: Store) -> Estimate | None:
    """The estimated cost of the training STEP; None if its model is not available yet or its architecture is unknown."""
    assert isinstance(step.parameters, train.Parameters)
    matter = _matter(step, graph, plan, store)
    return estimate(step.parameters, matter) if matter else None


def _matter(step: Step, graph: Graph, plan: Plan, store: Store) -> Matter | None:
    found = _config(step.inputs["model"], graph, plan, store)
    if found is None:
        return None
    tokens = [item for role, item in step.inputs.items() if role.startswith("tokens/")]
    lengths = [_longest(item, graph, plan, store) for item in tokens]
    supervised = max(_supervised(item, graph, plan, store) for item in tokens)
    config, exact = found
    order = graph[str(step.inputs["order"].producer)].parameters
    if isinstance(order, mix.Parameters) and order.bin_tokens:
        return Matter(config, order.bin_tokens, exact, supervised=supervised)
    longest, measured = max(length for length, _ in lengths), all(measured for _, measured in lengths)
    answers = max(_answers(graph[str(item.producer)]) for item in tokens)
    return Matter(config, longest, exact, measured, supervised=supervised, answers=answers)


def _config(model: Input, graph: Graph, plan: Plan, store: Store) -> tuple[Mapping[str, Any], bool] | None:
    """The configuration of a model, and whether its sizes are exact."""
    if model.producer is None:
        return _read(model.path, store)
    producer = graph[model.producer]
    if producer.kind is initialize.KIND:
        return _from_scratch(producer, plan, store)
    if producer.kind in (fetch.KIND, dequantise.KIND):
        return _read(producer.artifact, store) if _kept(producer, plan) else None
    # A trained model has the sizes of its base.
    return _config(producer.inputs["model"], graph, plan, store) if "model" in producer.inputs else None


def parameters_of(model: Input, graph: Graph, plan: Plan, store: Store) -> int | None:
    """Number of parameters of the model in a folder, without an adapter; None if it is not available yet or its architecture is unknown."""
    found = _config(model, graph, plan, store)
    described = model_of(found[0]) if found else None
    return described.parameters if described else None


def _read(folder: str, store: Store) -> tuple[Mapping[str, Any], bool] | None:
    config = store.metrics(f"{folder}/config.json")
    return (config, True) if config else None


def _from_scratch(step: Step, plan: Plan, store: Store) -> tuple[Mapping[str, Any], bool] | None:
    parameters = step.parameters
    assert isinstance(parameters, initialize.Parameters)
    vocabulary = store.metrics(step.metrics).get("vocab_size") if _kept(step, plan) else None
    config = configuration(parameters.architecture, vocabulary or parameters.tokenizer.vocab_size)
    return (config, vocabulary is not None) if config else None


def _longest(tokens: Input, graph: Graph, plan: Plan, store: Store) -> tuple[int, bool]:
    """Length in tokens of the longest training row (at most, of a pair), and whether it was measured; else it is max_length."""
    assert tokens.producer is not None
    step = graph[tokens.producer]
    parameters = step.parameters
    assert step.kind is tokenize.KIND and isinstance(parameters, tokenize.Parameters)
    longest = _counted(step, plan, store).get("longest")
    answers = _answers(step)
    return (answers * longest, True) if isinstance(longest, int) and longest else (answers * parameters.max_length, False)


def _answers(step: Step) -> int:
    """The answers of a row of a tokenize STEP: both of a pair are computed together."""
    return 2 if getattr(step.parameters, "pairs", False) else 1


def _supervised(tokens: Input, graph: Graph, plan: Plan, store: Store) -> float:
    """The supervised share of the training tokens; 1 if they were not counted."""
    counted = _counted(graph[str(tokens.producer)], plan, store)
    every, learnt = counted.get("tokens"), counted.get("supervised_tokens")
    return min(1.0, learnt / every) if isinstance(every, int) and isinstance(learnt, int) and every else 1.0


def _counted(step: Step, plan: Plan, store: Store) -> Mapping[str, Any]:
    """The recorded counts of the training tokens; empty if the step may run again."""
    split = store.metrics(step.metrics).get("train") if _kept(step, plan) else None
    return split if isinstance(split, dict) else {}


def _kept(step: Step, plan: Plan) -> bool:
    """Whether the recorded numbers of STEP are current, not those of another recipe or other inputs."""
    return plan[step.name].action is Action.KEEP
