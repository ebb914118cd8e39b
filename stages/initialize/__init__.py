"""initialize: train a tokenizer on the tasks' text, and create a model with random weights."""

from engine.core.part import Kind, Part, recipe
from stages.initialize.architectures import Architecture
from stages.initialize.tokenizers import Tokenizer


class Parameters(Part):
    """A from-scratch model: its architecture and its tokenizer."""

    architecture: Architecture = recipe(description="Architecture of the model, with its sizes.")
    tokenizer: Tokenizer = recipe(description="The tokenizer to train.")
    seed: int = recipe(0, "Seed of the random weights.", ge=0, lt=2**63)


KIND = Kind(
    "initialize",
    "Train a tokenizer and create a model with random weights.",
    Parameters,
    environment=("safetensors", "tokenizers", "torch", "transformers"),
)
