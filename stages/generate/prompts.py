"""Prompts of a task: templates in the spec or in files, and few-shot examples."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Need, Part, recipe


class TemplateFile(Part):
    """A template in a file; changing any byte of the file changes the recipe."""

    file: Annotated[str, Field(min_length=1)] = recipe(
        description="Template file, relative to the workspace, such as `prompts/title.jinja`."
    )

    def needs(self) -> tuple[Need, ...]:
        """The template file."""
        return (Need(("file",), path=self.file),)


class FewShot(Part):
    """Few-shot examples (question and answer) before each question, drawn from the train split only."""

    count: int = recipe(description="Number of examples before each question.", gt=0, le=64)
    answer: str = recipe(description="Column with an example's answer.", min_length=1)
    separator: str = recipe("\n\n", "Text after each example.")
    pool: int = recipe(64, "Number of candidate rows: those of the train split with the smallest hashes.", gt=0)
    shown_to: Literal["model", "teacher"] = recipe(
        "model", "Whether the examples are part of the training rows, or only of the teacher's prompts."
    )
    seed: int = recipe(0, "Seed for choosing examples.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.pool <= self.count:  # a row of the pool is never its own example
            raise PydanticCustomError("small_pool", "pool must be larger than count", {"at": ("pool",)})
        return self
