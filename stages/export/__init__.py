"""export: write a trained model in a form that leaves the project, and ask it there."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Kind, Part, recipe, resource
from stages.chat.formats import Format
from stages.chat.formats.plain import Plain
from stages.chat.markers import Markers
from stages.export.formats import ExportFormat
from stages.rows.control_tokens import ControlTokens


class Export(Part):
    """The forms in which a trained model leaves the project, and how each is tested."""

    formats: tuple[ExportFormat, ...] = recipe(description="The formats; each is a step of its own.", min_length=1)
    rows: int = recipe(8, "Held-out rows per task that every export and the trained model answer (chosen by content hash).", gt=0)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        labels = [one.label for one in self.formats]
        if twice := next((number for number, label in enumerate(labels) if label in labels[:number]), None):
            message = "the format {label} is listed twice: remove one of them"
            raise PydanticCustomError("named_twice", message, {"label": labels[twice], "at": ("formats", twice)})
        return self


class Parameters(Part):
    """The format of one export, and how it and the trained model are compared."""

    into: ExportFormat = recipe(description="The format.")
    rows: int = recipe(8, "Held-out rows per task that the export and the trained model answer.", gt=0)
    tasks: dict[str, Annotated[int, Field(gt=0)]] = recipe(description="Maximum tokens per answer, by task.")
    format: Format = recipe(Plain(), "Format of rows, as in training.")
    markers: Markers | None = recipe(None, "Marker texts between turns, if the training used them.")
    boundary: Literal["apart", "shift"] = recipe("apart", "How prompt and completion are tokenized at their boundary, as in training.")
    unrendered: Literal["refuse", "drop", "allow"] = recipe(
        "refuse", "Rows whose prompt the format renders incompletely, as in evaluation."
    )
    control_tokens_in_text: ControlTokens = recipe("text", "Control tokens in the text of a prompt, treated as in training.")
    strip_reasoning: bool = recipe(False, "Whether the reasoning of answers is removed, as in training.")
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)


KIND = Kind(
    "export",
    "Write a trained model in another format, and ask it there.",
    Parameters,
    environment=("peft", "safetensors", "tokenizers", "torch", "transformers"),
)
