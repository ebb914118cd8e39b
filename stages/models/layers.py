"""The linear layers of a model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module


def linear_layers(model: "Module") -> dict[str, "Module"]:
    """The linear layers of MODEL by full name, including GPT-2's transposed ones."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D)}
