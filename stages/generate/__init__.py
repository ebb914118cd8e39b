"""generate: turn source rows into prompt-completion rows or conversations, with answers from a teacher or from the source."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Kind, Part, named, recipe
from stages.generate.cleaning import TextRule
from stages.generate.cleaning.overlap import Overlap
from stages.generate.layout import UNPAIRED, Layout
from stages.generate.prompts import FewShot, TemplateFile
from stages.generate.sources import Members, Source
from stages.generate.sources.duels import Duels
from stages.generate.sources.predictions import Predictions
from stages.generate.teachers import Teacher

CleaningRule = Annotated[TextRule | Overlap, Field(discriminator="kind"), named]


class Rows(Part):
    """How the rows of a task are generated, as written in a spec."""

    source: Source = recipe(description="Source of the rows.")
    layout: Annotated[Layout, named] | None = recipe(
        None, "Layout of the conversations in the rows; it provides the columns `messages`, `system`, `prompt` and `completion`."
    )
    prompts: tuple[str | TemplateFile, ...] = recipe(
        ("",), "Jinja templates over a row's columns; each row uses one of them, chosen by a hash of its content.", min_length=1
    )
    system: str | TemplateFile = recipe("", "Jinja template of the system prompt.")
    few_shot: FewShot | None = recipe(None, "Few-shot examples before each question.")
    empty_fields: Literal["error", "leave_out", "allow"] = recipe(
        "error",
        "Rows with an empty field that the template does not handle (`default`, `or`, `if`): fail, leave the row out, or allow it.",
    )
    teacher: Teacher | None = recipe(None, "Who writes the completions; not needed if the layout finds them in the rows.")
    answer_prefix: str = recipe("", "Text before every completion, such as the space that a tokenizer expects between words.")
    cleaning: tuple[CleaningRule, ...] = recipe(
        (), "Cleaning rules, applied in order, each with a count of the rows that it removes; rows of a fixed test split are kept."
    )
    carry: tuple[Annotated[str, Field(min_length=1)], ...] = recipe((), "Columns that are passed on to tasks whose source is this task.")
    seed: int = recipe(0, "Seed for choosing among prompts.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _answered(self) -> Self:
        if self.teacher is None and self.layout is None:
            raise PydanticCustomError("no_teacher", "a task needs a teacher, or a layout that finds the completions in the rows", {})
        if self.teacher is None and (self.prompts != ("",) or self.system or self.few_shot):
            what = "without a teacher conversations are used unchanged, so prompts, system and few_shot have no effect"
            raise PydanticCustomError("unused_prompts", what, {"at": ("prompts",)})
        if self.teacher is not None and self.layout is not None and "" in self.prompts:
            what = "the teacher sees the layout's question only through a prompt"
            raise PydanticCustomError("unasked_layout", what + ': write prompts = ["{{{{ prompt }}}}"]', {"at": ("layout",)})
        if self.layout is not None and self.layout.kind == UNPAIRED and self.teacher is not None and self.teacher.kind != "gold":
            what = f'the labels of layout "{UNPAIRED}" judge the answers in the rows, and the teacher writes others: remove teacher'
            raise PydanticCustomError("judged_answers", what, {"at": ("teacher",)})
        return self


class HeldOut(Part):
    """The shares of the split step; few-shot examples are drawn from the train split only."""

    validation: float = recipe(description="Share of the rows in the validation split.")
    test: float = recipe(description="Share of the rows in the test split.")
    seed: int = recipe(description="Seed of the splits.")


class Parameters(Rows):
    """How the rows of a task are generated, grouped and split."""

    source: Annotated[Members | Duels | Predictions, Field(discriminator="kind"), named] = recipe(  # type: ignore[assignment]  # frozen, so covariant
        description="Source of the rows, or models' answers to them."
    )
    group_by: str | None = recipe(None, "Column whose equal values keep rows in one split.")
    split_column: str | None = recipe(None, "Column with the split that the source assigns to a row.")
    test_source: Source | None = recipe(None, "Source of a fixed test split.")
    held_out: HeldOut | None = recipe(None, "The held-out shares, needed to draw few-shot examples from the train split.")


KIND = Kind(
    "generate", "Generate the rows of a task: prompts from templates, completions from a teacher.", Parameters, environment=("jinja2",)
)
