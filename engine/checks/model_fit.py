"""Whether the trainings and tokens of a graph fit their models, told from configurations alone, before any work."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.checks.context_length import read_config
from engine.core.errors import Problem, did_you_mean
from engine.core.graph import Graph, Step
from engine.core.part import Part
from engine.estimate.configurations import configuration
from engine.estimate.methods import targets
from engine.estimate.models import Linear, Model, model_of
from stages import initialize, tokenize, train, vocabulary
from stages.chat.formats.chat import Chat
from stages.train.methods import Ia3, Lora, Qlora


def misfits(graph: Graph, root: Path) -> list[Problem]:
    """What is wrong between methods and models; a model that is not here yet is looked at when it is."""
    found = [problem for step in graph if step.kind is train.KIND for problem in _misfits(step, graph, root)]
    found += [problem for step in graph if step.kind is tokenize.KIND for problem in _no_template(step, graph, root)]
    return list(dict.fromkeys(found))


def _no_template(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    """A problem where rows become chats and neither spec nor tokenizer has a template; a tokenizer that is not here yet may have one."""
    parameters = step.parameters
    assert isinstance(parameters, tokenize.Parameters)
    form = parameters.format
    if not isinstance(form, Chat) or form.template is not None or form.template_file is not None:
        return
    given = {role.removeprefix("tokenizer/"): item for role, item in step.inputs.items() if role.startswith("tokenizer/")}
    config = given.get(_TOKENIZER_CONFIG)
    if config is None or _TEMPLATE_FILE in given:
        return
    while config.producer is not None and graph[config.producer].kind is vocabulary.KIND:
        config = graph[config.producer].inputs[f"tokenizer/{_TOKENIZER_CONFIG}"]
    where = step.locate(("format",))
    if config.producer is not None:
        if graph[config.producer].kind is initialize.KIND:
            hint = "give tokenization.format.template or tokenization.format.template_file"
            yield Problem('format "chat" needs a chat template, and the tokenizer of a model from scratch has none', where, hint)
        return
    if not _has_template(root / config.path):
        beside = (root / config.path).with_name(_TEMPLATE_FILE).is_file()
        hint = f"name {_TEMPLATE_FILE} in model.tokenizer_files" if beside else "give tokenization.format.template or template_file"
        yield Problem(f'format "chat" needs a chat template, and {config.path} has none', where, hint)


_TOKENIZER_CONFIG, _TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"


def _has_template(path: Path) -> bool:
    """Whether a tokenizer's configuration has a chat template; True for one that cannot be read, of which the step says why."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(found, dict) or bool(found.get("chat_template"))


def _misfits(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    parameters = step.parameters
    assert isinstance(parameters, train.Parameters)
    # Where rows lie one behind another, the virtual tokens would stand before the first of them only.
    if not parameters.method.packs and getattr(getattr(parameters, "batching", None), "flat", False):
        what = f"{parameters.method.kind} does not go with rows that share a sequence: its virtual tokens stand before the first row only"
        yield Problem(what, step.locate(("batching",)), 'set training.batching to "padded", or take method "lora"')
    if parameters.gradient_checkpointing and not parameters.method.checkpoints_layers:
        what = f"{parameters.method.kind} does not go with gradient_checkpointing: it turns off the cache that holds the prefix"
        yield Problem(what, step.locate(("gradient_checkpointing",)), "leave resources.gradient_checkpointing out, or take prompt_tuning")
    config = model_configuration(step, graph, root)
    if config is None:
        return
    method, model_type = parameters.method, config.get("model_type")
    if isinstance(model_type, str) and (reason := method.refused(model_type)):
        what, _, hint = reason.rpartition("; ")
        yield Problem(what or reason, step.locate(("method",)), hint if what else None)
    elif model := model_of(config):
        yield from _layers(step, method, model)


def model_configuration(step: Step, graph: Graph, root: Path) -> Mapping[str, Any] | None:
    """The configuration of the model that a training starts from; None where it is not here, or cannot be read."""
    model = step.inputs["model"]
    if model.producer is None:
        return read_config(root / model.path)
    producer = graph[model.producer]
    if isinstance(producer.parameters, initialize.Parameters):
        return configuration(producer.parameters.architecture, producer.parameters.tokenizer.vocab_size)
    # A training changes nothing of what is asked here.
    return model_configuration(producer, graph, root) if producer.kind is train.KIND else None


def _layers(step: Step, method: Part, model: Model) -> Iterator[Problem]:
    if isinstance(method, Ia3):
        yield from _strangers(step, model, "target_modules", method.target_modules)
        yield from _strangers(step, model, "feedforward_modules", method.feedforward_modules)
    elif isinstance(method, Lora | Qlora):
        if method.target_modules != "all-linear":
            yield from _strangers(step, model, "target_modules", method.target_modules)
        yield from _high_rank(step, model, method)


def _strangers(step: Step, model: Model, key: str, names: tuple[str, ...]) -> Iterator[Problem]:
    """A problem for each name that is the end of no linear layer's name."""
    for number, name in enumerate(names):
        if not any(count for _, count in targets(model, (name,))):
            known = sorted({full.rpartition(".")[2] for full in model.names})
            near = did_you_mean(name, known) or ""
            listed = f"the model's linear layers: {', '.join(known)}"
            what = f"{key}: the model ({model.model_type}) has no linear layer '{name}'"
            hint = f"{near} {listed}" if near.startswith("did") else listed
            yield Problem(what, step.locate(("method", key, number)), hint)
    if not names and key == "target_modules" and not isinstance(step.parameters.method, Ia3):  # type: ignore[attr-defined]
        yield Problem("target_modules names no layer", step.locate(("method", key)), 'name some, or take "all-linear"')


def _high_rank(step: Step, model: Model, method: Lora | Qlora) -> Iterator[Problem]:
    """A problem where r is larger than the smaller side of a chosen layer."""
    chosen = [layer for layer, count in targets(model, method.target_modules) if count]
    smallest = min(chosen, key=_side, default=None)
    if smallest is not None and method.r > _side(smallest):
        side = _side(smallest)
        what = f"r = {method.r} is larger than the smaller side of {smallest.name}, which is {side}: this is no low rank"
        yield Problem(what, step.locate(("method", "r")), f"set training.method.r to at most {side}, or leave this layer out")


def _side(layer: Linear) -> int:
    return min(layer.inputs, layer.outputs)
