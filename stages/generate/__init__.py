"""generate: rows of a source become (prompt, completion) rows or conversations, answered by a teacher or by the source itself."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Kind, Part, named, recipe
from stages.generate.cleaning import CleaningRule
from stages.generate.layout import Layout
from stages.generate.prompts import FewShot, TemplateFile
from stages.generate.sources import AnySource, Source
from stages.generate.teachers import Teacher


class Rows(Part):
    """What the rows of a task are made of, as a spec's task says it."""

    source: Source = recipe(description="Where the rows come from.")
    layout: Annotated[Layout, named] | None = recipe(
        None, "The rows are conversations in a known layout; it makes the columns `messages`, `system`, `prompt` and `completion`."
    )
    prompts: tuple[str | TemplateFile, ...] = recipe(
        ("",), "Jinja templates over a row's fields; each row uses one of them, chosen by its content.", min_length=1
    )
    system: str | TemplateFile = recipe("", "Jinja template of the system prompt.")
    few_shot: FewShot | None = recipe(None, "Examples that stand before each question.")
    empty_fields: Literal["error", "leave_out", "allow"] = recipe(
        "error",
        "What happens to a row whose field is empty, unless its template says so (`default`, `or`, `if`): fail, leave it out, use it.",
    )
    teacher: Teacher | None = recipe(None, "Who writes the completion of a row; none needed where a layout finds it in the row.")
    answer_prefix: str = recipe("", "Put before every completion, such as the space that a tokenizer wants between words.")
    cleaning: tuple[CleaningRule, ...] = recipe(
        (), "Rules by which rows are left out, in this order; each counts what it takes; rows of a fixed test split stay."
    )
    carry: tuple[Annotated[str, Field(min_length=1)], ...] = recipe((), "Columns that are carried on, for tasks whose source is this task.")
    seed: int = recipe(0, "Seed of the choice among prompts.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _answered(self) -> Self:
        if self.teacher is None and self.layout is None:
            raise PydanticCustomError("no_teacher", "a task needs a teacher, or a layout that finds the answers in the rows", {})
        if self.teacher is None and (self.prompts != ("",) or self.system or self.few_shot):
            what = "without a teacher the conversations are taken as they are: prompts, system and few_shot ask nobody"
            raise PydanticCustomError("unused_prompts", what, {"at": ("prompts",)})
        if self.teacher is not None and self.layout is not None and "" in self.prompts:
            what = "the layout's question goes to the teacher only through a prompt"
            raise PydanticCustomError("unasked_layout", what + ': write prompts = ["{{{{ prompt }}}}"]', {"at": ("layout",)})
        return self


class HeldOut(Part):
    """What the split step will hold out: examples are drawn from the rest."""

    validation: float = recipe(description="Share of the rows held out to watch the training.")
    test: float = recipe(description="Share of the rows held out to evaluate on.")
    seed: int = recipe(description="Seed of the splits.")


class Parameters(Rows):
    """What the rows of a task are made of, and what will keep them together."""

    source: AnySource = recipe(description="Where the rows come from.")  # type: ignore[assignment]  # frozen: nobody puts one in
    group_by: str | None = recipe(None, "Column whose equal values keep rows together in one split.")
    split_column: str | None = recipe(None, "Column in which the source itself says which split a row belongs to.")
    test_source: Source | None = recipe(None, "Where the rows of a fixed test split come from.")
    held_out: HeldOut | None = recipe(None, "What is held out, where examples must not be drawn from it.")


KIND = Kind("generate", "Make the rows of a task: prompts from templates, completions from a teacher.", Parameters, environment=("jinja2",))
