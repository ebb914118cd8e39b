"""Forward passes over the rows of token files, without gradients: the model, batches of similar length, and their tensors."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stages.models.added_tokens import extend
from stages.models.attention import Attention
from stages.models.folders import Dtype, load_adapter, load_model
from stages.tokens.files import Array, Tokens

if TYPE_CHECKING:
    from stages.models.quantisation import Quantisation

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
_LOGITS_BYTES = 256 * 2**20
"""Approximate limit on the bytes of logits per forward pass; with the sorting by length it decides which rows share one."""
_IGNORED = -100


def open_for_inference(
    inputs: Mapping[str, Path], precision: Precision, dtype: Dtype, attention: Attention, quantisation: "Quantisation | None" = None
) -> Any:
    """The model of INPUTS (`model`, with `vocabulary` and `adapter` if there are any) on the first device, if there is one."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    model = load_model(inputs["model"], attention, dtype, quantisation)
    if "vocabulary" in inputs:
        extend(model, inputs["vocabulary"])
    if "adapter" in inputs:
        model = load_adapter(model, inputs["adapter"])
    return model.to("cuda") if torch.cuda.is_available() else model


def batches(lengths: Array, vocabulary: int) -> Iterator[list[int]]:
    """All rows by ascending length, in batches whose logits fit, of at least one row."""
    batch: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * int(lengths[row]) * vocabulary * 4 > _LOGITS_BYTES:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def tensors(tokens: Tokens, rows: Sequence[int]) -> tuple[dict[str, Any], Any, list[int]]:
    """The model's inputs and the labels of ROWS, padded on the right, int64 [rows, width], and the number of labels of each."""
    import torch

    width = max(int(tokens.lengths[row]) for row in rows)
    ids, mask = torch.zeros((len(rows), width), dtype=torch.int64), torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), _IGNORED, dtype=torch.int64)
    for line, row in enumerate(rows):
        found, supervised = tokens.row(row)
        ids[line, : len(found)] = torch.from_numpy(found.astype(np.int64))
        mask[line, : len(found)] = 1
        labels[line, : len(found)] = torch.from_numpy(np.where(supervised, found, _IGNORED).astype(np.int64))
    labels[:, 0] = _IGNORED
    return {"input_ids": ids, "attention_mask": mask}, labels, (labels[:, 1:] >= 0).sum(1).tolist()
