"""Checks whether training methods and chat formats fit the models of a graph, from configurations alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.checks.configurations import CHAT_TEMPLATE, read_config
from engine.core.errors import Problem, did_you_mean
from engine.core.graph import Graph, Step
from engine.core.part import Part
from engine.estimate.configurations import configuration
from engine.estimate.methods import targets
from engine.estimate.models import Linear, Model, model_of
from stages import initialize, rescale, tokenize, train, vocabulary
from stages.chat.formats.chat import Chat
from stages.train.methods import Ia3, Lora, Qlora


def misfits(graph: Graph, root: Path) -> list[Problem]:
    """Problems between methods or formats and models, without duplicates; models that are not available yet are skipped."""
    found = [problem for step in graph if step.kind is train.KIND for problem in _misfits(step, graph, root)]
    found += [problem for step in graph if step.kind is tokenize.KIND for problem in _no_template(step, graph, root)]
    return list(dict.fromkeys(found))


def _no_template(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    """A problem if rows are formatted as chats and neither spec nor tokenizer has a template; tokenizers not available yet are skipped."""
    parameters = step.parameters
    assert isinstance(parameters, tokenize.Parameters)
    form = parameters.format
    if not isinstance(form, Chat) or form.template is not None or form.template_file is not None:
        return
    given = {role.removeprefix("tokenizer/"): item for role, item in step.inputs.items() if role.startswith("tokenizer/")}
    config = given.get(_TOKENIZER_CONFIG)
    if config is None or CHAT_TEMPLATE in given:
        return
    while config.producer is not None and graph[config.producer].kind is vocabulary.KIND:
        config = graph[config.producer].inputs[f"tokenizer/{_TOKENIZER_CONFIG}"]
    where = step.locate(("format",))
    if config.producer is not None:
        if graph[config.producer].kind is initialize.KIND:
            hint = "set tokenization.format.template or tokenization.format.template_file"
            yield Problem('format "chat" needs a chat template, but the tokenizer of a model from scratch has none', where, hint)
        return
    if not _has_template(root / config.path):
        beside = (root / config.path).with_name(CHAT_TEMPLATE).is_file()  # and is not among the files that the spec lists
        hint = f"add {CHAT_TEMPLATE} to model.tokenizer_files" if beside else "set tokenization.format.template or template_file"
        yield Problem(f'format "chat" needs a chat template, but {config.path} has none', where, hint)


_TOKENIZER_CONFIG = "tokenizer_config.json"


def _has_template(path: Path) -> bool:
    """Whether a tokenizer's configuration has a chat template; True if it cannot be parsed, which the step reports."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(found, dict) or bool(found.get("chat_template"))


def _misfits(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    parameters = step.parameters
    assert isinstance(parameters, train.Parameters)
    # With several rows in one sequence, the virtual tokens would precede only the first row.
    if not parameters.method.packs and getattr(getattr(parameters, "batching", None), "flat", False):
        what = f"{parameters.method.kind} does not support packed rows: its virtual tokens would precede only the first row of a sequence"
        yield Problem(what, step.locate(("batching",)), 'set training.batching to "padded", or use method "lora"')
    if parameters.gradient_checkpointing and not parameters.method.checkpoints_layers:
        what = f"{parameters.method.kind} does not support gradient_checkpointing, which disables the key-value cache that holds the prefix"
        yield Problem(what, step.locate(("gradient_checkpointing",)), "remove resources.gradient_checkpointing, or use prompt_tuning")
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
    """The configuration of the model that a training starts from; None if it is not available yet or cannot be parsed."""
    model = step.inputs["model"]
    if model.producer is None:
        return read_config(root / model.path)
    producer = graph[model.producer]
    if isinstance(producer.parameters, initialize.Parameters):
        return configuration(producer.parameters.architecture, producer.parameters.tokenizer.vocab_size)
    # Neither a training nor a scaling of positions changes the layers.
    return model_configuration(producer, graph, root) if producer.kind in (train.KIND, rescale.KIND) else None


def _layers(step: Step, method: Part, model: Model) -> Iterator[Problem]:
    if isinstance(method, Ia3):
        yield from _unknown_layers(step, model, "target_modules", method.target_modules)
        yield from _unknown_layers(step, model, "feedforward_modules", method.feedforward_modules)
    elif isinstance(method, Lora | Qlora):
        if method.target_modules != "all-linear":
            yield from _unknown_layers(step, model, "target_modules", method.target_modules)
        yield from _high_rank(step, model, method)


def _unknown_layers(step: Step, model: Model, key: str, names: tuple[str, ...]) -> Iterator[Problem]:
    """A problem for each name that matches no linear layer."""
    for number, name in enumerate(names):
        if not any(count for _, count in targets(model, (name,))):
            known = sorted({full.rpartition(".")[2] for full in model.names})
            near = did_you_mean(name, known) or ""
            listed = f"the model's linear layers: {', '.join(known)}"
            what = f"{key}: {model.model_type} has no linear layer '{name}'"
            hint = f"{near} {listed}" if near.startswith("did") else listed
            yield Problem(what, step.locate(("method", key, number)), hint)
    if not names and key == "target_modules" and not isinstance(step.parameters.method, Ia3):  # type: ignore[attr-defined]
        yield Problem("target_modules is empty", step.locate(("method", key)), 'list layers, or use "all-linear"')


def _high_rank(step: Step, model: Model, method: Lora | Qlora) -> Iterator[Problem]:
    """A problem if r exceeds the smaller dimension of a target layer."""
    chosen = [layer for layer, count in targets(model, method.target_modules) if count]
    smallest = min(chosen, key=_side, default=None)
    if smallest is not None and method.r > _side(smallest):
        side = _side(smallest)
        what = f"r = {method.r} exceeds the smaller dimension of {smallest.name}, {side}, so the update is not low-rank"
        yield Problem(what, step.locate(("method", "r")), f"set training.method.r to at most {side}, or exclude this layer")


def _side(layer: Linear) -> int:
    return min(layer.inputs, layer.outputs)
