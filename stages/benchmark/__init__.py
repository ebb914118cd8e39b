"""benchmark: run lm-evaluation-harness tasks, published or custom, on a model."""

from engine.core.part import Kind, Part, recipe, resource


class Benchmarks(Part):
    """Which lm-evaluation-harness tasks are run, and how."""

    tasks: tuple[str, ...] = recipe(description="Tasks, groups or tags of lm-evaluation-harness, such as `mmlu`.", min_length=1)
    few_shot: int | None = recipe(None, "Few-shot examples before each question; if unset, each task's default.", ge=0)
    limit: int | None = recipe(None, "Evaluate only the first N documents of each task.", gt=0)
    chat_template: bool = recipe(False, "Whether questions are wrapped in the tokenizer's chat template.")
    seed: int = recipe(0, "Seed for sampling few-shot examples.", ge=0, lt=2**32)


class Parameters(Benchmarks):
    """Which tasks are run, and with which resources."""

    batch_rows: int = resource(64, "Requests per batch.", gt=0)
    threads: int | None = resource(None, "CPU threads; if unset, all cores.", gt=0)


KIND = Kind(
    "benchmark",
    "Run lm-evaluation-harness tasks on a model.",
    Parameters,
    environment=("datasets", "lm-eval", "peft", "safetensors", "tokenizers", "torch", "transformers"),
    slot="device",
)
