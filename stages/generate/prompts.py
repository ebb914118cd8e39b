"""How the prompts of a task are given: templates in the spec or in files, and examples before the question."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Need, Part, recipe


class TemplateFile(Part):
    """A template that stands in a file of its own; the file's content counts, to the byte."""

    file: Annotated[str, Field(min_length=1)] = recipe(description="The file, relative to the workspace, such as `prompts/title.jinja`.")

    def needs(self) -> tuple[Need, ...]:
        """The file."""
        return (Need(("file",), path=self.file),)


class FewShot(Part):
    """Examples of question and answer that are put before each question; drawn from the train split only."""

    count: int = recipe(description="How many examples stand before a question.", gt=0, le=64)
    answer: str = recipe(description="The column that holds an example's answer.", min_length=1)
    separator: str = recipe("\n\n", "Stands after each example.")
    pool: int = recipe(64, "The examples are chosen among so many rows of the train split, those with the smallest hashes.", gt=0)
    shown_to: Literal["model", "teacher"] = recipe(
        "model", "Whether the examples are part of the rows that the model learns from, or only of what the teacher is asked."
    )
    seed: int = recipe(0, "Another seed chooses other examples.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.pool <= self.count:  # a row of the pool is never its own example
            raise PydanticCustomError("small_pool", "the pool must hold more rows than stand before a question", {"at": ("pool",)})
        return self
