"""Completions by a language model on this machine: one that continues a text, or one that answers it."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Need, Part, recipe, resource
from stages.generate.question import Answer, Question, Tally
from stages.process.job import Job


class Local(Part):
    """A causal or encoder-decoder model on this machine, asked greedily: the same model gives the same answers."""

    environment: ClassVar[tuple[str, ...]] = ("safetensors", "tokenizers", "torch", "transformers")
    reports_progress: ClassVar[bool] = True

    kind: Literal["local"] = "local"
    path: str | None = recipe(None, "The model's folder, in the layout of `from_pretrained`.", min_length=1)
    id: str | None = recipe(None, "In place of path: the model's id on the hub, with revision.", pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = recipe(None, "Commit of the model's repository: 40 hex digits.", pattern=r"^[0-9a-f]{40}$")
    max_new_tokens: int = recipe(256, "The answer is cut off after this many tokens.", gt=0)
    stop: tuple[str, ...] = recipe((), "Texts that end the answer; they are no part of it.")
    chat: Literal["auto", "never"] = recipe("auto", "Whether the tokenizer's chat template, where it has one, surrounds the question.")
    on_cut_off: Literal["drop", "keep", "fail"] = recipe(
        "drop", "What happens to a row whose answer does not end: left out (counted), kept, or an error."
    )
    batch_rows: int = resource(16, "Rows that are answered at once.", gt=0)
    threads: int | None = resource(None, "CPU threads; none given: all cores.", gt=0)

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.path is None) == (self.id is None) or (self.id is None) != (self.revision is None):
            raise PydanticCustomError("which_teacher", "a local teacher needs either path, or id with revision", {"at": ("path",)})
        return self

    def needs(self) -> tuple[Need, ...]:
        """The model's folder, fetched from the hub first where an id is given."""
        if self.id is not None and self.revision is not None:
            return (Need(("id",), model=(self.id, self.revision)),)
        return (Need(("path",), path=self.path),)

    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the answer depends on, beside the prompt."""
        return ()

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The model's answer to each question, in order; raises UserError where the model cannot be loaded or a prompt is too long."""
        from stages.generate.asking.here import answers

        return answers(self, questions, job, tally)
