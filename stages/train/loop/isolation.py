"""Attention within each row of a concatenated batch: how a model gets the row boundaries, and a check that no information leaks.

transformers derives boundaries from restarting position ids, for models that pass these to its masks, and builds a full mask of token
pairs. For models that use transformers' attention registry, our attention computes each row separately: no mask, memory linear in tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.core.errors import UserError

BLOCKS = "adapterbuild_blocks"
"""Name of our attention in transformers' registry."""


@dataclass(frozen=True)
class Arrangement:
    """How a model separates concatenated rows."""

    flat: bool
    one_line: bool = False
    """Whether all rows of a micro-batch are in one line; otherwise each bin has a line."""
    borders: bool = False
    """Whether the attention gets row boundaries (`cu_seq_lens_q`, int32 [rows + 1])."""
    mask: Literal["bool", "float"] | None = None
    """Whether a full attention mask is passed, for models that derive none from position ids."""

    def inputs(self, position_ids: torch.Tensor) -> dict[str, Any]:
        """The model's inputs in addition to token ids and POSITION_IDS [lines, width]."""
        if self.borders:
            return {"cu_seq_lens_q": borders(position_ids)}
        return {} if self.mask is None else {"attention_mask": pairs(position_ids, self.mask)}


PADDED = Arrangement(flat=False)


def borders(position_ids: torch.Tensor) -> torch.Tensor:
    """Offsets of the rows in the single line of POSITION_IDS, int32 [rows + 1]."""
    assert len(position_ids) == 1
    starts = torch.nonzero(position_ids[0] == 0).flatten()
    return torch.cat([starts, torch.tensor([position_ids.shape[1]])]).to(torch.int32)


def pairs(position_ids: torch.Tensor, kind: Literal["bool", "float"]) -> torch.Tensor:
    """Block-diagonal causal mask [lines, 1, width, width]: True (or 0) where a token attends to an earlier one of its row."""
    row = (position_ids == 0).cumsum(-1)
    sees = (row[:, :, None] == row[:, None, :]).tril()[:, None]
    return sees if kind == "bool" else torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)


def block_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row; QUERY [1, heads, tokens, width], result [1, tokens, heads, width].

    Without boundaries: transformers' attention, for padded rows, where causality hides the padding on the right.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    grouped = query.shape[1] != key.shape[1]
    if query.is_cuda and query.dtype != torch.float32 and not dropout:
        return _varlen(query, key, value, cu_seq_lens_q, scaling, grouped), None
    cuts = cu_seq_lens_q.tolist()
    parts = [
        scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        for a, b in pairwise(cuts)
    ]
    return torch.cat(parts, 2).transpose(1, 2), None


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cuts: torch.Tensor, scaling: float | None, grouped: bool
) -> torch.Tensor:
    """torch's variable-length kernel for all rows, for 16-bit dtypes on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    longest = int(cuts.diff().max())
    flat = [states[0].transpose(0, 1) for states in (query, key, value)]
    found: torch.Tensor = varlen_attn(*flat, cuts, cuts, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)
    return found[None]


def isolate(model: Any) -> Arrangement:
    """Set MODEL's attention to separate concatenated rows, and return the arrangement; raises UserError if none works."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    implementation = str(base.config._attn_implementation)
    reasons = []
    for arrangement in _candidates(base, implementation):
        _set_attention(base, BLOCKS if arrangement.borders else implementation)
        if (leak := leaks(model, arrangement)) is None:
            return arrangement
        reasons.append(leak)
    _set_attention(base, implementation)
    what = f"{type(base).__name__} with {implementation} attention cannot separate packed rows: {'; '.join(dict.fromkeys(reasons))}"
    hint = 'set training.batching to "padded", or use a model with rotary or learned positions'
    if getattr(base, "is_loaded_in_8bit", False):
        hint = (
            'set training.batching to "padded", or training.method.bits to 4: layers of 8 bits treat the outliers of all rows of a batch '
            "together (Dettmers et al., 2022, arXiv:2208.07339)"
        )
    raise UserError(what, hint=hint)


def _candidates(base: Any, implementation: str) -> list[Arrangement]:
    """The arrangements to try, cheapest first."""
    found = [Arrangement(flat=True, one_line="flash" in implementation)]
    if implementation in ("sdpa", BLOCKS) and base._supports_attention_backend and not _is_windowed(base.config):
        found.insert(0, Arrangement(flat=True, one_line=True, borders=True))
    if implementation in ("sdpa", "eager"):
        found.append(Arrangement(flat=True, mask="bool" if implementation == "sdpa" else "float"))
    return found


def _is_windowed(config: Any) -> bool:
    """Whether a layer has sliding-window attention or soft-capped scores, which our attention does not support."""
    names = ("sliding_window", "attention_chunk_size", "attn_logit_softcapping")
    return any(getattr(config, name, None) is not None for name in names)


def _set_attention(base: Any, name: str) -> None:
    from transformers import AttentionInterface

    if name == BLOCKS:
        AttentionInterface.register(BLOCKS, block_attention)
    if base.config._attn_implementation != name:
        base.set_attn_implementation(name)


_PERTURBED, _ALONE = 1e-4, {torch.float32: 1e-3}
_ALONE_16_BIT = 5e-2
_TIMES = 3
"""In 16 bits, how many times the rounding of padded rows that of concatenated rows may be: in deep models it exceeds any fixed share."""


def leaks(model: Any, arrangement: Arrangement) -> str | None:
    """What MODEL does wrong with three concatenated rows, whose logits must not depend on each other; None if nothing."""
    rows = [_ids(model, length, seed) for length, seed in ((5, 1), (7, 2), (4, 3))]
    others = [_ids(model, 5, 4), rows[1], _ids(model, 4, 5)]
    with _evaluating(model):
        try:
            packed, perturbed = (_packed_logits(model, given, arrangement) for given in (rows, others))
            alone = [_logits(model, {"input_ids": row[None]})[0] for row in rows]
            padded = _padded_logits(model, rows)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            return f"it fails on such a batch ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    size = float(alone[1].float().std())
    if _difference(packed[1], perturbed[1]) > _PERTURBED * size:
        return "the logits of a row depend on its neighbours"
    tolerance = _ALONE.get(alone[1].dtype, _ALONE_16_BIT) * size
    if alone[1].dtype not in _ALONE:
        tolerance = max(tolerance, _TIMES * max(_difference(a, b) for a, b in zip(padded, alone, strict=True)))
    if any(_difference(a, b) > tolerance for a, b in zip(packed, alone, strict=True)):
        return "the logits of a concatenated row differ from those of the row alone"
    return None


def _ids(model: Any, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (length,), generator=generator)


def _packed_logits(model: Any, rows: list[torch.Tensor], arrangement: Arrangement) -> list[torch.Tensor]:
    lengths = [len(row) for row in rows]
    position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    inputs = {"input_ids": torch.cat(rows)[None], "position_ids": position_ids, **arrangement.inputs(position_ids)}
    return list(_logits(model, inputs)[0].split(lengths))


def _padded_logits(model: Any, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """The logits of ROWS in a batch that is padded on the right, the layout without concatenation."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    found = _logits(model, {"input_ids": ids, "attention_mask": mask})
    return [logits[: len(row)] for logits, row in zip(found, rows, strict=True)]


def _logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    device = next(model.parameters()).device
    found: torch.Tensor = model(**{name: value.to(device) for name, value in inputs.items()}, use_cache=False).logits
    return found


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Context without dropout and gradients; restores the mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)
