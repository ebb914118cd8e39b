"""generate: rows of a source become (prompt, completion) rows, the completion answered by a teacher."""

from engine.part import Kind, Part, recipe
from stages.generate.sources import Source
from stages.generate.teachers import Teacher


class Rows(Part):
    """What the rows of a task are made of, as a spec's task says it."""

    source: Source = recipe(description="Where the rows come from.")
    prompts: tuple[str, ...] = recipe(
        ("",), "Jinja templates over a row's fields; each row uses one of them, chosen by its content.", min_length=1
    )
    teacher: Teacher = recipe(description="Who writes the completion of a row.")
    answer_prefix: str = recipe("", "Put before every completion, such as the space that a tokenizer wants between words.")
    seed: int = recipe(0, "Seed of the choice among prompts.", ge=0, lt=2**63)


class Parameters(Rows):
    """What the rows of a task are made of, and what will keep them together."""

    group_by: str | None = recipe(None, "Column whose equal values keep rows together in one split.")


KIND = Kind("generate", "Make the rows of a task: prompts from templates, completions from a teacher.", Parameters, environment=("jinja2",))
