"""vocabulary: add the spec's special tokens to a tokenizer; all tasks tokenized with it share the step."""

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """Which tokens are added."""

    special_tokens: tuple[str, ...] = recipe(description="Special tokens to add; they are recognised anywhere in a text.", min_length=1)


KIND = Kind("vocabulary", "Add special tokens to a tokenizer.", Parameters, environment=("tokenizers",))
