"""Dropout with masks per row, so that a row has the same mask in any micro-batch, on any device, after any restart.

torch draws the mask of a whole tensor from one stream, so it depends on which rows are computed together and on all earlier draws. Here a
mask is a hash of (seed, position of the row in the training, token of the row, feature, layer), as in counter-based generators (Salmon et
al., 2011, "Parallel random numbers: as easy as 1, 2, 3"); the mixing steps are those of Wellons' lowbias32.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)


@dataclass
class RowKeys:
    """The rows of the current micro-batch, shared by all layers of a model."""

    seed: int
    positions: torch.Tensor | None = None
    """Positions of the rows in the training, int64 [rows], if each row of a tensor is one row of the training."""
    tokens: torch.Tensor | None = None
    """A key per token, int64 [rows, tokens], if a row of a tensor contains several rows of the training."""
    _keys: dict[int, torch.Tensor] = field(default_factory=dict)

    def set(self, positions: torch.Tensor | None, tokens: torch.Tensor | None = None) -> None:
        """Set the rows of the next micro-batch."""
        self.positions, self.tokens, self._keys = positions, tokens, {}

    def of_batch(self, positions: torch.Tensor, offsets: torch.Tensor, flat: bool) -> None:
        """Set the rows by position and offset of each token [lines, width]; FLAT: a line contains several rows."""
        # An encoder's lines are longer than its decoder's; the row's position serves both.
        self.set(None, token_numbers(positions, offsets)) if flat else self.set(positions[:, 0])

    def of(self, length: int) -> torch.Tensor:
        """A key for each token of rows of LENGTH tokens, int64 [rows, tokens]."""
        if length not in self._keys:
            assert self.positions is not None or self.tokens is not None, "the rows of this micro-batch are not set"
            if self.tokens is not None:
                keys = self.tokens
            else:
                assert self.positions is not None
                keys = token_numbers(self.positions[:, None], torch.arange(length, device=self.positions.device))
            self._keys[length] = _mixed64(keys + _wrapped(self.seed * 2 + 1))
        return self._keys[length]


def token_numbers(positions: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """A key for the token at OFFSETS of the row at POSITIONS, int64; rows have fewer than 2**24 tokens."""
    return positions * (1 << 24) + offsets


class RowDropout(torch.nn.Module):
    """Dropout of features by row and token, with rescaling; the identity outside of training."""

    def __init__(self, p: float, layer: int, keys: RowKeys) -> None:
        super().__init__()
        self.p, self.layer, self.keys = p, layer, keys

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """VALUES [rows, tokens, features] with dropout."""
        if not self.training or not self.p:
            return values
        tokens = _mixed64(self.keys.of(values.shape[1]).to(values.device) + _wrapped((self.layer + 1) * _GOLDEN))
        features = _mixed64(torch.arange(values.shape[-1], device=values.device) + _wrapped((self.layer + 1) << 32))
        return values * (_draw(_low32(tokens)[..., None], _low32(features)) >= _threshold(self.p)).to(values.dtype) / (1 - self.p)


def noise_of(keys: RowKeys, length: int, width: int, layer: int, device: torch.device) -> torch.Tensor:
    """Uniform noise in [-1, 1) for each token and feature of the current micro-batch, [rows, LENGTH, WIDTH]."""
    tokens = _mixed64(keys.of(length).to(device) + _wrapped((layer + 1) * _GOLDEN))
    features = _mixed64(torch.arange(width, device=device) + _wrapped((layer + 1) << 32))
    return _draw(_low32(tokens)[..., None], _low32(features)) / 2**31


def _draw(tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Uniformly distributed int32 for each pair."""
    drawn = tokens ^ features
    drawn *= _FIRST
    drawn ^= (drawn >> 15) & 0x1FFFF
    drawn *= _SECOND
    return drawn


def _threshold(p: float) -> int:
    return int(p * 2**32) - 2**31


def _wrapped(value: int) -> int:
    """VALUE modulo 2**64 as a signed integer."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed64(keys: torch.Tensor) -> torch.Tensor:
    """A bijective mixing of int64 keys; multiplication wraps around."""
    keys = keys * _GOLDEN
    keys = (keys ^ (keys >> 32)) * _GOLDEN
    return keys ^ (keys >> 29)


def _low32(keys: torch.Tensor) -> torch.Tensor:
    return ((keys >> 16) & 0xFFFFFFFF).sub(1 << 31).to(torch.int32)


def install(model: Any, seed: int) -> RowKeys:
    """Replace every adapter's dropout in MODEL by RowDropout, and disable the base's; returns the keys that the layers share.

    The base's dropout, if its configuration has one, belongs to its pretraining. It also applies to attention weights, where its masks
    would depend on the division of a batch.
    """
    keys = RowKeys(seed)
    dropouts = sorted(name for name, module in model.named_modules() if "lora_dropout" in name and isinstance(module, torch.nn.Dropout))
    layers = {name: number for number, name in enumerate(dropouts)}
    for name, module in list(model.named_modules()):
        for child, inner in list(module.named_children()):
            if isinstance(inner, torch.nn.Dropout):
                full = f"{name}.{child}" if name else child
                setattr(module, child, RowDropout(inner.p if full in layers else 0.0, layers.get(full, 0), keys))
        for attribute, value in list(vars(module).items()):
            if "drop" in attribute and isinstance(value, float):
                setattr(module, attribute, 0.0)
    return keys
