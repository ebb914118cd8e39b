"""benchmark: a model takes tasks of lm-evaluation-harness, published ones or one's own."""

from engine.core.part import Kind, Part, recipe, resource


class Benchmarks(Part):
    """Which tasks a model takes, and how."""

    tasks: tuple[str, ...] = recipe(description="Tasks, groups or tags of lm-evaluation-harness, such as `mmlu`.", min_length=1)
    few_shot: int | None = recipe(None, "Examples before each question; none given: as each task says.", ge=0)
    limit: int | None = recipe(None, "Ask only the first so many documents of each task.", gt=0)
    chat_template: bool = recipe(False, "Whether questions are put into the tokenizer's chat template.")
    seed: int = recipe(0, "Seed of the choice of examples.", ge=0, lt=2**32)


class Parameters(Benchmarks):
    """Which tasks a model takes, and how fast."""

    batch_rows: int = resource(64, "Requests that are computed at once.", gt=0)
    threads: int | None = resource(None, "CPU threads; none given: all cores.", gt=0)


KIND = Kind(
    "benchmark",
    "Let a model take tasks of lm-evaluation-harness.",
    Parameters,
    environment=("datasets", "lm-eval", "peft", "safetensors", "tokenizers", "torch", "transformers"),
    slot="device",
)
