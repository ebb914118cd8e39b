"""Embeddings of tokens that a spec adds to a model's vocabulary, which are trained and saved."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEW_TOKENS = "new_tokens.json"
"""File of a vocabulary step with the added tokens and their ids."""

_ATTRIBUTE = "new_token_ids"


def extend(model: "PreTrainedModel", vocabulary: Path) -> None:
    """Add an embedding to MODEL for each token that the step in the folder VOCABULARY added.

    Each is initialized to the mean of all embeddings, which hardly changes the model's predictions, without randomness
    (Hewitt, 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    ids = sorted(json.loads((vocabulary / NEW_TOKENS).read_text("utf-8")).values())
    before = int(model.get_input_embeddings().weight.shape[0])
    if ids and ids[-1] >= before:
        model.resize_token_embeddings(ids[-1] + 1, mean_resizing=False)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        if embeddings is not None:
            _start(embeddings, ids, min(before, ids[0]) if ids else before)
    model.__dict__[_ATTRIBUTE] = ids


def _start(embeddings: Any, ids: list[int], known: int) -> None:
    import torch

    with torch.no_grad():
        for parameter in (embeddings.weight, getattr(embeddings, "bias", None)):
            if parameter is not None and ids:
                parameter[ids] = parameter[:known].mean(dim=0)


def new_token_ids(model: Any) -> list[int]:
    """Ids of the tokens that `extend` added to MODEL."""
    return list(model.__dict__.get(_ATTRIBUTE, ()))


def trainable_tokens(model: Any) -> dict[str, list[int]] | None:
    """The embedding rows that an adapter trains in full, by module, for peft's `trainable_token_indices`; None without new tokens.

    An untied output layer trains the same rows; with tied weights, peft ties them too.
    """
    ids = new_token_ids(model)
    if not ids:
        return None
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [inputs] if outputs is None or outputs.weight is inputs.weight else [inputs, outputs]
    return {name.rpartition(".")[2]: ids for name, module in model.named_modules() if any(module is one for one in modules)}
