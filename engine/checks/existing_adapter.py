"""Checks of adapters that were trained elsewhere: their configuration and tensors against the base and the method, without loading them."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.checks.configurations import read_adapter_config
from engine.checks.model_fit import model_configuration
from engine.core.errors import Location, Problem, UserError
from engine.core.graph import Graph, Step
from engine.estimate.methods import targets
from engine.estimate.models import Model, model_of
from engine.spec.notation import toml
from stages import fetch, train
from stages.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, require_adapter_weights
from stages.models.folders import read_adapter_config as read
from stages.train.methods.base import LowRank, TrainingMethod
from stages.train.methods.saved import differences, saved_method

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of tensors, by their names in the file."""
_PREFIX = "base_model.model."
_SUFFIXES = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".ia3_l")


def adapter_problems(graph: Graph, root: Path) -> list[Problem]:
    """Why adapters that no step trained do not fit their base or the method that trains them further, without duplicates.

    Adapters and models that are not available yet are skipped; the steps that load them check them again.
    """
    return list(dict.fromkeys(problem for step in graph for problem in _problems(step, graph, root)))


def unlike_bases(graph: Graph, root: Path) -> list[Problem]:
    """A warning for each adapter whose configuration names another base on the hub, or another commit of it."""
    found = [problem for step in graph for problem in _unlike_base(step, graph, root)]
    return list(dict.fromkeys(found))


def _existing(step: Step, graph: Graph, root: Path) -> Iterator[tuple[Path, Location | None]]:
    """The folder of each adapter that STEP reads and no step trained, as far as it is here, and where a spec names it."""
    for role, item in step.inputs.items():
        if role != "adapter" and not role.startswith("adapter/"):
            continue
        producer = graph[item.producer] if item.producer else None
        if (producer is None or producer.kind is fetch.KIND) and (root / item.path).is_dir():
            yield root / item.path, producer.origin if producer else item.where


def _problems(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    for folder, where in _existing(step, graph, root):
        shown = folder.relative_to(root) if folder.is_relative_to(root) else folder
        try:
            config = read(folder)
            require_adapter_weights(folder)
            shapes = _shapes(folder / ADAPTER_WEIGHTS)
        except UserError as error:
            yield Problem(error.problems[0].what.replace(str(folder), str(shown)), where, error.problems[0].hint)
            continue
        model = model_of(model_configuration(step, graph, root) or {})
        if model and (found := next(_misfits(model, config, shapes), None)):
            base = config.get("base_model_name_or_path")
            hint = f"it was trained on {base}" if base else "it was trained on another model"
            yield Problem(f"the adapter in {shown} does not fit the model: {found}", where, f"{hint}; set that one in [model]")
        elif isinstance(step.parameters, train.Parameters):
            yield from _not_continued(step, step.parameters.method, config, shapes, model, str(shown), where)


def _shapes(path: Path) -> Shapes:
    """The shapes in the header of a safetensors file (https://huggingface.co/docs/safetensors); raises UserError if it is damaged."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return {name: tuple(value["shape"]) for name, value in header.items() if name != "__metadata__"}
    except (OSError, ValueError, struct.error, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a safetensors file", hint="download or save the adapter again") from error


def _misfits(model: Model, config: Mapping[str, Any], shapes: Shapes) -> Iterator[str]:
    """How tensors of an adapter differ from the layers of MODEL."""
    layers = {f"{s.prefix}.{n}.{layer.name}": layer for s in model.stacks for n in range(s.layers) for layer in s.block}
    layers[model.head.name] = model.head
    patterned = bool(config.get("rank_pattern"))
    for name, shape in sorted(shapes.items()):
        path, suffix = _place(name)
        if suffix in ("", ".ia3_l"):
            vocabulary = path.rpartition(".")[2] in (f"{model.embedding}.weight", f"{model.head.name}.weight")
            if (vocabulary or name.endswith((f"{model.embedding}.weight", f"{model.head.name}.weight"))) and shape[0] != model.vocabulary:
                yield f"{path} has {shape[0]} rows, and the model's vocabulary has {model.vocabulary} tokens"
            continue
        found = next((layer for full, layer in layers.items() if f".{path}".endswith(f".{full}")), None)
        if found is None:
            yield f"{model.model_type} with this configuration has no layer {path}"
            continue
        if suffix == ".lora_magnitude_vector":
            continue
        side, rank, width = ("inputs", 0, found.inputs) if suffix == ".lora_A.weight" else ("outputs", 1, found.outputs)
        if len(shape) != 2 or shape[1 - rank] != width:
            yield f"{name} has the shape {list(shape)}, and the layer has {width} {side}"
        elif not patterned and isinstance(config.get("r"), int) and shape[rank] != config["r"]:
            yield f"{name} has rank {shape[rank]}, and {ADAPTER_CONFIG} says r = {config['r']}"


def _place(name: str) -> tuple[str, str]:
    """The layer of a tensor, and the part of the layer's update that it is; an empty part for weights saved in full."""
    path = name.removeprefix(_PREFIX)
    suffix = next((one for one in _SUFFIXES if path.endswith(one)), "")
    return path.removesuffix(suffix), suffix


def _not_continued(
    step: Step, method: TrainingMethod, config: Mapping[str, Any], shapes: Shapes, model: Model | None, shown: str, where: Location | None
) -> Iterator[Problem]:
    """Why METHOD cannot train the adapter further."""
    if not method.makes_adapter:
        what = f"method {method.kind} trains the whole model and cannot continue the adapter in {shown}"
        yield Problem(what, step.locate(("method",)), 'use method "lora", or merge the adapter and start from the merged model')
        return
    saved = saved_method(config)
    if not isinstance(saved, str) and config.get("trainable_token_indices"):
        saved = "it has embeddings of added tokens (trainable_token_indices)"
    if isinstance(saved, str):
        yield Problem(f"the adapter in {shown} cannot be trained further: {saved}", where, "merge it, and train the merged model")
        return
    for key, value in differences(method, saved).items():
        if key == "kind":
            what, hint = f"method {method.kind} cannot continue the {value} adapter in {shown}", f'use method "{value}"'
            yield Problem(what, step.locate(("method",)), hint)
        else:
            what = f"method.{key} is {toml(getattr(method, key))}, but the adapter in {shown} has {toml(value)}"
            yield Problem(what, step.locate(("method", key)), "set the same value: an adapter's structure is fixed")
    if model and isinstance(method, LowRank) and isinstance(saved, LowRank):
        yield from _other_layers(step, method, shapes, model, shown)


def _other_layers(step: Step, method: LowRank, shapes: Shapes, model: Model, shown: str) -> Iterator[Problem]:
    """A problem if METHOD targets other layers than those that the adapter has updates of."""
    theirs = {path.rpartition(".")[2] for path, suffix in map(_place, shapes) if suffix == ".lora_A.weight"}
    ours = {layer.name.rpartition(".")[2] for layer, count in targets(model, method.target_modules) if count}
    if theirs != ours and ours:
        what = f"method.target_modules selects {', '.join(sorted(ours))}, but the adapter in {shown} has {', '.join(sorted(theirs))}"
        yield Problem(what, step.locate(("method", "target_modules")), f"set target_modules = {toml(tuple(sorted(theirs)))}")


def _unlike_base(step: Step, graph: Graph, root: Path) -> Iterator[Problem]:
    model = step.inputs.get("model")
    producer = graph[model.producer] if model and model.producer else None
    if producer is None or producer.kind is not fetch.KIND:
        return
    for folder, where in _existing(step, graph, root):
        ours = producer.parameters
        assert isinstance(ours, fetch.Parameters)
        config = read_adapter_config(folder) or {}
        name, revision = config.get("base_model_name_or_path"), config.get("revision")
        if not isinstance(name, str) or name.count("/") != 1 or name.startswith((".", "/")):
            continue  # a path on another machine
        if name != ours.id:
            what, hint = f"the adapter was trained on {name}, and the model is {ours.id}", "ignore this if their weights are the same"
            yield Problem(what, where, hint, "warning")
        elif isinstance(revision, str) and len(revision) == 40 and revision != ours.revision:
            what = f"the adapter was trained on commit {revision} of {name}, and the model is commit {ours.revision}"
            yield Problem(what, where, f'set model.revision = "{revision}"', "warning")
