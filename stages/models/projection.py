"""Predictions of supervised tokens: the output layer is applied only to the positions whose logits are needed.

With completion masks, most positions predict nothing that counts; where the vocabulary is large, their logits would be most of a small
model's memory and a good part of its time. Products of matrices with fewer rows may round otherwise, so output layers that are small, and
cost little, are applied to every position.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 1 << 22
"""Weights (vocabulary times hidden size) from which on an output layer is applied to the needed positions only; an edit changes results."""


def is_large(vocabulary: int, hidden: int) -> bool:
    """Whether an output layer from HIDDEN features to VOCABULARY logits is applied to the needed positions only."""
    return vocabulary * hidden >= LARGE


def predictions(
    model: Any, inputs: Mapping[str, Any], labels: "Tensor", forward: Callable[[Mapping[str, Any]], Any] | None = None
) -> "tuple[Tensor, Tensor]":
    """The logits that predict the supervised tokens, float32 [tokens, vocabulary], and the tokens, int64 [tokens], row by row.

    LABELS are [lines, width], negative if not supervised; the logits at position i - 1 predict the label at position i. FORWARD computes
    the outputs of MODEL from INPUTS, where something wraps the model.
    """
    supervised = labels[:, 1:] >= 0
    targets = labels[:, 1:][supervised]
    selected = False

    def select(_head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal selected
        selected = True
        return (_predicting(arguments[0], supervised)[None], *arguments[1:])

    # Without supervised tokens, a process computes a batch only to take part in collectives: its graph stays that of the others.
    layer = _output_layer(model) if len(targets) else None
    hook = layer.register_forward_pre_hook(select) if layer is not None else None
    try:
        given = {**inputs, "use_cache": False}
        logits = (forward(given) if forward else model(**given)).logits
    finally:
        if hook is not None:
            hook.remove()
    return (logits[0] if selected else _predicting(logits, supervised)).float(), targets


def _predicting(values: "Tensor", supervised: "Tensor") -> "Tensor":
    """Of VALUES [lines, width or more, features], those at the positions that predict SUPERVISED tokens [lines, width - 1]."""
    # Prompt tuning's virtual tokens precede the row.
    return values[:, -supervised.shape[1] - 1 : -1][supervised]


def _output_layer(model: Any) -> Any | None:
    """The output layer of MODEL, if it is large and computes each position by itself, and the model is not compiled with its graph."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    layer = inner.get_output_embeddings()
    if layer is None or not is_large(config.vocab_size, config.hidden_size) or model._compiled_call_impl is not None:
        return None
    # A dropout mask is drawn by a position's place in its row.
    return None if any("Dropout" in type(part).__name__ and part.p for part in layer.modules()) else layer
