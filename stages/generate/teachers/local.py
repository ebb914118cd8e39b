"""Completions from a local language model, causal or encoder-decoder."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Need, Part, recipe, resource
from stages.generate.question import Answer, Question, Tally
from stages.process.job import Job


class Local(Part):
    """A local causal or encoder-decoder model with greedy decoding, so its answers are deterministic."""

    environment: ClassVar[tuple[str, ...]] = ("safetensors", "tokenizers", "torch", "transformers")
    reports_progress: ClassVar[bool] = True

    kind: Literal["local"] = "local"
    path: str | None = recipe(None, "The model's folder, as written by `save_pretrained`.", min_length=1)
    id: str | None = recipe(None, "Instead of path: the model's id on the hub; needs revision.", pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = recipe(None, "Full commit hash of the model's repository (40 hex digits).", pattern=r"^[0-9a-f]{40}$")
    max_new_tokens: int = recipe(256, "Maximum tokens per answer.", gt=0)
    stop: tuple[str, ...] = recipe((), "Stop sequences, which are removed from the answer.")
    chat: Literal["auto", "never"] = recipe("auto", "Whether questions are rendered with the tokenizer's chat template, if it has one.")
    on_cut_off: Literal["drop", "keep", "fail"] = recipe(
        "drop", "Rows whose answer reaches max_new_tokens: leave the row out (counted), keep it, or fail."
    )
    batch_rows: int = resource(16, "Rows per batch.", gt=0)
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.path is None) == (self.id is None) or (self.id is None) != (self.revision is None):
            raise PydanticCustomError("which_teacher", "a local teacher needs either path, or id with revision", {"at": ("path",)})
        return self

    def needs(self) -> tuple[Need, ...]:
        """The model's folder, or a fetch step for a model on the hub."""
        if self.id is not None and self.revision is not None:
            return (Need(("id",), model=(self.id, self.revision)),)
        return (Need(("path",), path=self.path),)

    def columns(self) -> tuple[str, ...]:
        """Columns of a row that the answer depends on, in addition to the prompt."""
        return ()

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The model's answer to each question, in order; raises UserError if the model cannot be loaded or a prompt is too long."""
        from stages.generate.asking.here import answers

        return answers(self, questions, job, tally)
