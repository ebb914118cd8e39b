"""bitsandbytes' 4-bit linear layer with the same results on every CPU.

On a processor with AVX-512, bitsandbytes (0.50) does two things otherwise than on others. Its kernel that dequantises takes the beginning
of each row for the beginning of a block, so that rows whose length is no multiple of the block size get wrong constants. And with BF16, a
layer is repacked when it is first used without gradients: the constants are then rounded to 8 bits of mantissa, the stored weights change
in the middle of a training, and shapes that the packing does not support fail. This layer never repacks, and dequantises exactly.
"""

from copy import copy
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit


class Linear4bit(bitsandbytes.nn.Linear4bit):
    """bitsandbytes' layer without repacking, on dequantised weights that do not depend on the processor."""

    def forward(self, x: Any) -> Any:
        """X [..., inputs] times the weights, plus the bias: [..., outputs], in X's dtype."""
        if x.device.type != "cpu":
            return super().forward(x)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        return _Product.apply(x.to(self.compute_dtype), self.weight, bias).to(x.dtype)


def dequantised(weight: Any) -> torch.Tensor:
    """The matrix [outputs, inputs] that WEIGHT, bitsandbytes' `Params4bit`, holds, in the dtype that it had before."""
    state = weight.quant_state
    if weight.device.type != "cpu":
        return torch.as_tensor(dequantize_4bit(weight.data, state))
    # As one long row: its only beginning is that of the first block.
    flat = copy(state)
    flat.shape = torch.Size([state.shape.numel()])
    return torch.as_tensor(dequantize_4bit(weight.data, flat)).reshape(state.shape)


class _Product(torch.autograd.Function):
    """A linear layer that dequantises its weights again for the backward pass, so that they do not take memory in between."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.weight = weight
        return torch.nn.functional.linear(x, dequantised(weight).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None]:
        (gradient,) = gradients
        inputs = gradient @ dequantised(ctx.weight).to(gradient.dtype) if ctx.needs_input_grad[0] else None
        bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return inputs, None, bias
