"""Negative log-likelihood of given texts, summed over the tokens of each row."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

TokenIds = list[int]

IGNORED = -100
_LOGITS_BYTES = 256 * 2**20
"""Approximate limit on the bytes of logits per forward pass."""


def losses(
    model: Any, sources: Sequence[TokenIds], targets: Sequence[TokenIds], done: Callable[[int], None] = lambda rows: None
) -> list[tuple[float, int]]:
    """Summed loss (nats) and number of tokens of each of TARGETS given its source; without a source the first token is not predicted."""
    order = sorted(range(len(targets)), key=lambda number: len(sources[number]) + len(targets[number]))
    found: list[tuple[float, int]] = [(0.0, 0)] * len(targets)
    for batch in _batches(
        order, [len(s) + len(t) for s, t in zip(sources, targets, strict=True)], model.config.get_text_config().vocab_size
    ):
        for number, result in zip(batch, _losses(model, [sources[n] for n in batch], [targets[n] for n in batch]), strict=True):
            found[number] = result
        done(len(batch))
    return found


def _batches(order: Sequence[int], lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """ORDER, sorted by ascending length, in batches whose logits fit, of at least one row."""
    batches: list[list[int]] = [[]]
    for number in order:
        if batches[-1] and (len(batches[-1]) + 1) * lengths[number] * vocabulary * 4 > _LOGITS_BYTES:
            batches.append([])
        batches[-1].append(number)
    return [batch for batch in batches if batch]


def _losses(model: Any, sources: list[TokenIds], targets: list[TokenIds]) -> list[tuple[float, int]]:
    if model.config.is_encoder_decoder:
        inputs, labels = _padded(sources, 0), _padded(targets, IGNORED)
        given = {"input_ids": inputs[0], "attention_mask": inputs[1], "labels": labels[0]}
    else:
        inputs, wanted = (
            _padded([s + t for s, t in zip(sources, targets, strict=True)], 0),
            [[IGNORED] * max(len(s), 1) + (t if s else t[1:]) for s, t in zip(sources, targets, strict=True)],
        )
        labels = _padded(wanted, IGNORED)
        given = {"input_ids": inputs[0], "attention_mask": inputs[1]}
    with torch.inference_mode():
        logits = model(**{name: values.to(model.device) for name, values in given.items()}, use_cache=False).logits.float()
    expected = labels[0].to(logits.device)
    if not model.config.is_encoder_decoder:
        # A prompt-learning adapter prepends virtual tokens to the row.
        logits, expected = logits[:, -expected.shape[1] : -1], expected[:, 1:]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), expected, ignore_index=IGNORED, reduction="none")
    sums, counts = each.double().sum(1).tolist(), (expected != IGNORED).sum(1).tolist()
    return list(zip(sums, counts, strict=True))


def _padded(rows: list[TokenIds], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ROWS padded on the right with FILL, int64 [rows, width], and the attention mask."""
    width = max(len(row) for row in rows)
    values = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    return values, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
