"""The model card of an adapter: what it is, how it was made, and the commands that load it; contains no path of this machine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from engine.identity.provenance import Provenance

if TYPE_CHECKING:
    from engine.artifacts.bases import Base

CARD = "README.md"

_PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
"""Prompt-based PEFT types; transformers itself loads none of them."""

_PLACE = "`engine adapters --fetch DIGEST --base-model place`."

_METRICS = ("steps", "rows", "tokens", "trainable_parameters", "train_loss", "validation_loss")


class Way(Enum):
    """How a folder provides its base."""

    WHOLE = "this is a whole model"
    HUB = "named by id and revision"
    PLACED = "in base/, with links next to the adapter"
    NEAR = "named by a path relative to the folder"
    UNNAMED = "not included: it was not available"


def card(told: Provenance, base: "Base | None", way: Way, config: Mapping[str, Any], prompts: Sequence[str] = ()) -> str:
    """The card of the artifact of TOLD, whose base is provided in this WAY; CONFIG is its `adapter_config.json`.

    PROMPTS are the lines on how it is asked.
    """
    return "\n".join([*_head(told, base, config), "", *_body(told, base, way, config, prompts)]) + "\n"


def _head(told: Provenance, base: "Base | None", config: Mapping[str, Any]) -> Iterator[str]:
    """The metadata for the hub: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    yield "---"
    yield f"library_name: {'peft' if base else 'transformers'}"
    if config.get("task_type") != "SEQ_2_SEQ_LM":
        yield "pipeline_tag: text-generation"
    if base and base.hub:
        yield f"base_model: {base.hub[0]}"
        yield "base_model_relation: adapter"
    yield "tags:"
    yield "- adapterbuild"
    yield f"- {_method(told)}"
    yield "---"


def _body(told: Provenance, base: "Base | None", way: Way, config: Mapping[str, Any], prompts: Sequence[str]) -> Iterator[str]:
    yield f"# {told.step}"
    yield ""
    yield f"Trained by adapterbuild; method `{_method(told)}`. Content address: `{told.digest}`."
    yield ""
    if base:
        yield f"Base: {_base(base)}; {way.value}."
        yield ""
    yield from _loading(base, way, config)
    yield from prompts
    yield "## How it was made"
    yield ""
    yield from _metrics(told)
    yield "```json"
    yield json.dumps(dict(told.recipe), indent=1, sort_keys=True, ensure_ascii=False)
    yield "```"
    yield ""
    yield from _address(way)


def _method(told: Provenance) -> str:
    method = told.recipe.get("method")
    return str(method["kind"]) if isinstance(method, dict) else str(method)


def _base(base: "Base") -> str:
    if base.hub:
        return f"`{base.hub[0]}` at revision `{base.hub[1]}`"
    return f"`{base.name}`" + (f", content address `{base.made.digest}`" if base.made else "")


def _loading(base: "Base | None", way: Way, config: Mapping[str, Any]) -> Iterator[str]:
    """The commands that load it, each to be run in this folder."""
    yield "## Loading it"
    yield ""
    if way is Way.UNNAMED:
        yield "Set `base_model_name_or_path` in `adapter_config.json` to the base, a folder or an id of the hub, then:"
    elif way is Way.NEAR:
        yield "In this folder, since peft and transformers take the base's path from the working directory:"
    elif way is Way.PLACED:
        yield "In this folder, since peft takes the base's path from the working directory; the others load it by its path from anywhere:"
    else:
        yield "In this folder, or with its path in place of `.`:"
    yield ""
    pairs, prompts = config.get("task_type") == "SEQ_2_SEQ_LM", config.get("peft_type") in _PROMPTS
    kind = "Seq2SeqLM" if pairs else "CausalLM"
    # A base that is only named has its own generation settings: answers would not end where the training taught.
    settings = way not in (Way.WHOLE, Way.PLACED)
    yield from _python(_whole(kind) if way is Way.WHOLE else _auto(kind, settings))
    if pairs or prompts:
        yield "`pipeline` and `transformers serve` cannot load adapters of this type."
        yield ""
        return
    added = bool(config.get("trainable_token_indices"))
    if added and way is not Way.PLACED:
        yield f"It has trained tokens that its base lacks; `pipeline` needs them in the base: {_PLACE}"
        yield ""
    else:
        at = f', revision="{base.hub[1]}"' if base and base.hub and way is Way.HUB else ""
        lines = ["from transformers import GenerationConfig, pipeline" if settings else "from transformers import pipeline", ""]
        lines.append(f'generate = pipeline("text-generation", model="."{at})')
        yield from _python(lines + ['generate.model.generation_config = GenerationConfig.from_pretrained(".")'] * settings)
    if way in (Way.WHOLE, Way.PLACED):
        yield from ("```sh", "transformers serve .", "```", "")
    else:
        yield f"`transformers serve` needs the base's weights in this folder: {_PLACE}"
        yield ""


def _auto(kind: str, settings: bool) -> list[str]:
    loads = [f'model = AutoPeftModelFor{kind}.from_pretrained(".")', 'tokenizer = AutoTokenizer.from_pretrained(".")']
    loads += ['model.generation_config = GenerationConfig.from_pretrained(".")'] * settings
    names = "AutoTokenizer, GenerationConfig" if settings else "AutoTokenizer"
    return [f"from peft import AutoPeftModelFor{kind}", f"from transformers import {names}", "", *loads]


def _whole(kind: str) -> list[str]:
    loads = [f'model = AutoModelFor{kind}.from_pretrained(".")', 'tokenizer = AutoTokenizer.from_pretrained(".")']
    return [f"from transformers import AutoModelFor{kind}, AutoTokenizer", "", *loads]


def _python(lines: list[str]) -> list[str]:
    return ["```python", *lines, "```", ""]


def _metrics(told: Provenance) -> Iterator[str]:
    measured = json.loads(told.beside.get(f"metrics/{told.step}.json", b"{}"))
    found = {name: measured[name] for name in _METRICS if name in measured}
    if not found:
        return
    yield "| | |"
    yield "|---|---|"
    for name, value in found.items():
        shown = ", ".join(f"{task} {loss}" for task, loss in value.items()) if isinstance(value, dict) else value
        yield f"| {name.replace('_', ' ')} | {shown} |"
    yield ""


def _address(way: Way) -> Iterator[str]:
    yield "Tokenizer, chat template and `generation_config.json` (where answers end) are what it was trained with."
    if way is Way.WHOLE:
        yield "The content address covers all files except this one."
        return
    yield "The content address covers the files without this one, without the base and the links to it,"
    yield "and with `base_model_name_or_path` and `revision` null."
