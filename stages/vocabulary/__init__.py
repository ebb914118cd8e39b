"""vocabulary: a tokenizer gets special tokens of the spec's own; all tasks that are tokenized with it share the step."""

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """Which tokens are added."""

    special_tokens: tuple[str, ...] = recipe(description="Tokens that are found in a text before anything else is.", min_length=1)


KIND = Kind("vocabulary", "Add special tokens to a tokenizer.", Parameters, environment=("tokenizers",))
