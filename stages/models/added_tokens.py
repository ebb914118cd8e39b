"""Tokens that a spec adds to a model's own: embeddings for them, which a training learns and saves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEW_TOKENS = "new_tokens.json"
"""The file of a vocabulary step with the added tokens and their ids."""

_ATTRIBUTE = "new_token_ids"


def extend(model: "PreTrainedModel", vocabulary: Path) -> None:
    """Give MODEL an embedding for each token that the step in the folder VOCABULARY added.

    Each begins as the mean of all embeddings: no token is likelier than before, and nothing is drawn at random
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
    """The ids of the tokens that `extend` gave MODEL embeddings for."""
    return list(model.__dict__.get(_ATTRIBUTE, ()))


def trainable_tokens(model: Any) -> dict[str, list[int]] | None:
    """The rows of the embeddings that an adapter learns in full, by module, as peft takes them; None where no token is new.

    Where the output has weights of its own, it learns the same rows; where they are tied, peft ties them too.
    """
    ids = new_token_ids(model)
    if not ids:
        return None
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [inputs] if outputs is None or outputs.weight is inputs.weight else [inputs, outputs]
    return {name.rpartition(".")[2]: ids for name, module in model.named_modules() if any(module is one for one in modules)}
