"""evaluate: a model answers the test rows of several tasks, and metrics say how well."""

from typing import Literal

from engine.part import Kind, Part, recipe, resource
from stages.evaluate.metrics import Metric


class TaskEvaluation(Part):
    """How one task is asked."""

    max_new_tokens: int = recipe(64, "The answer is cut off after this many tokens.", gt=0)


class Parameters(Part):
    """What is asked and what is measured."""

    tasks: dict[str, TaskEvaluation] = recipe(description="The tasks whose test rows are asked.", min_length=1)
    metrics: tuple[Metric, ...] = recipe(description="What is measured on the answers.", min_length=1)
    over_length: Literal["error", "drop", "truncate_prompt_left"] = recipe(
        "error",
        "What happens to a prompt that leaves no room for the answer: fail, leave the row out (counted), or cut its beginning (counted).",
    )
    rows: int | None = recipe(None, "Ask only this many rows of each test split (chosen by content hash).", gt=0)
    batch_rows: int = resource(64, "Rows that are generated at once.", gt=0)
    threads: int | None = resource(None, "CPU threads; none given: all cores.", gt=0)


KIND = Kind(
    "evaluate",
    "Let a model answer the test rows of several tasks and measure the answers.",
    Parameters,
    environment=("peft", "safetensors", "tokenizers", "torch", "transformers"),
    slot="device",
)
