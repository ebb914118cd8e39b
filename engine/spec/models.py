"""The model that an experiment starts from, as the section [model] specifies it: one of five ways, distinguished by their keys."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from engine.core.part import Name, Part, recipe
from engine.spec.hub_names import COMMIT_HASH, HUB_ID
from stages.initialize import Architecture, Tokenizer
from stages.initialize.tokenizers import Bpe
from stages.rescale.scalings import Scaling


def _with_config(files: tuple[str, ...]) -> tuple[str, ...]:
    """FILES; raises an error unless they contain the configuration, which defines the end-of-sequence token."""
    if "tokenizer_config.json" not in files:
        message = "tokenizer_files must contain tokenizer_config.json, which defines the end-of-sequence token"
        raise PydanticCustomError("no_tokenizer_config", message)
    return files


class ScratchModel(Part):
    """A model from scratch: random weights and a new tokenizer."""

    name: Name = recipe(description="Name of the model; suffix of the names of its tokenize steps.")
    architecture: Architecture = recipe(description="The architecture, with its sizes.")
    tokenizer: Tokenizer = recipe(Bpe(), "The tokenizer to train.")
    seed: int = recipe(0, "Seed of the weight initialization.", ge=0, lt=2**63)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

TokenizerFiles = Annotated[tuple[Annotated[str, Field(pattern=r"^[\w.-]+$")], ...], Field(min_length=1), AfterValidator(_with_config)]

_PYTHON_TOKENIZER = "For a tokenizer implemented in Python, list the files that its class reads in place of `tokenizer.json`."


class HubAdapter(Part):
    """An adapter on the Hugging Face hub, pinned to a commit."""

    id: str = recipe(description="Hub id of the adapter.", pattern=HUB_ID)
    revision: str = recipe(description="Full commit hash in the adapter's repository: 40 hex digits.", pattern=COMMIT_HASH)


class _Scaled(Part):
    """A model whose rotary positions can be scaled."""

    rope_scaling: Scaling | None = recipe(
        None, "Scaling of the rotary positions, for a longer context: a step writes the model with it, which training and evaluation load."
    )


class _Existing(_Scaled):
    """What is set for models that exist, whatever they come from."""

    adapter: Annotated[str, Field(min_length=1)] | HubAdapter | None = recipe(
        None,
        "An adapter on the model, trained elsewhere: its folder, relative to the workspace or absolute, or a table with `id` and "
        "`revision` on the hub. It is trained further, evaluated and merged; only safetensors weights are read.",
    )


class LocalModel(_Existing):
    """A model in a local folder, in the layout that `from_pretrained` reads."""

    path: str = recipe(description="Folder of the model, relative to the workspace or absolute.", min_length=1)
    name: Name | None = recipe(None, "Name of the model; default: the folder's name.")
    tokenizer_files: TokenizerFiles = recipe(
        TOKENIZER_FILES,
        "Files of the tokenizer. If they are not set, format `chat` also reads `chat_template.jinja` where the folder has it. "
        + _PYTHON_TOKENIZER,
    )


class HubModel(_Existing):
    """A model on the Hugging Face hub, pinned to a commit."""

    id: str = recipe(description="Hub id of the model, such as `tiiuae/falcon-7b`.", pattern=HUB_ID)
    revision: str = recipe(description="Full commit hash in the model's repository: 40 hex digits.", pattern=COMMIT_HASH)
    name: Name | None = recipe(None, "Name of the model; default: the last part of the id.")
    tokenizer_files: TokenizerFiles = recipe(
        TOKENIZER_FILES, f"Files of the tokenizer. Add `chat_template.jinja` if the chat template is in that file. {_PYTHON_TOKENIZER}"
    )


class GgufModel(_Existing):
    """A model in a local GGUF file, dequantised once into a model folder."""

    gguf: str = recipe(description="The GGUF file, relative to the workspace or absolute.", min_length=1, pattern=r"\.gguf$")
    name: Name | None = recipe(None, "Name of the model; default: the file name up to its first dot.")
    dtype: Literal["float32", "bfloat16", "float16"] = recipe(
        "float32", "Type of the dequantised weights; `float32` represents the file's values exactly, the others round them."
    )


class TrainedModel(_Scaled):
    """The model trained by another experiment of this workspace."""

    experiment: Name = recipe(description="Name of the experiment whose model is trained further.")
    merged: bool = recipe(
        False,
        "Whether its adapter is merged into the weights first (by its `[merge]`, if it has one), so that a new adapter or a full training "
        "starts from the merged model; otherwise that adapter itself is trained further.",
    )


_MODELS: dict[str, type[Part]] = {
    "architecture": ScratchModel,
    "path": LocalModel,
    "id": HubModel,
    "gguf": GgufModel,
    "experiment": TrainedModel,
}


def _which_model(value: object) -> str | None:
    """The key that determines how VALUE specifies a model."""
    if isinstance(value, Mapping):
        return next((key for key in _MODELS if key in value), None)
    return next((key for key, model in _MODELS.items() if isinstance(value, model)), None)


Model = Annotated[
    Annotated[ScratchModel, Tag("architecture")]
    | Annotated[LocalModel, Tag("path")]
    | Annotated[HubModel, Tag("id")]
    | Annotated[GgufModel, Tag("gguf")]
    | Annotated[TrainedModel, Tag("experiment")],
    Discriminator(
        _which_model,
        custom_error_type="which_model",
        custom_error_message="model needs one of the keys architecture (from scratch), path, id (with revision), gguf and experiment",
    ),
]
