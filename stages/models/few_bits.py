"""bitsandbytes' layer of 4-bit weights, computed on a CPU as the quantised weights say, on every processor.

On a processor with AVX-512 and BF16 bitsandbytes (0.50) packs a layer's weights anew when the layer is first used without gradients: the
blocks' constants then have 8 bits of mantissa, the layer's stored weights change in the midst of a training, and shapes that the packing
cannot take fail. Here the answer of the processor is never asked for.
"""

from typing import Any

import bitsandbytes


class Linear4bit(bitsandbytes.nn.Linear4bit):
    """bitsandbytes' layer, whose weights stay as they were quantised."""

    def forward(self, x: Any) -> Any:
        """The product of X [..., inputs] with the weights, plus the bias: [..., outputs], of X's type."""
        if x.device.type != "cpu":
            return super().forward(x)
        # As bitsandbytes' own, without the packing: weights become numbers of compute_dtype and are multiplied.
        asked = x.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        return bitsandbytes.matmul_4bit(asked, self.weight, bias=bias, quant_state=self.weight.quant_state).to(x.dtype)
