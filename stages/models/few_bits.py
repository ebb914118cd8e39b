"""bitsandbytes' 4-bit linear layer with the same results on every CPU.

On a processor with AVX-512 and BF16, bitsandbytes (0.50) repacks a layer's weights when the layer is first used without gradients: the
block constants are then rounded to 8 bits of mantissa, the stored weights change in the middle of a training, and shapes that the packing
does not support fail. This layer never repacks.
"""

from typing import Any

import bitsandbytes


class Linear4bit(bitsandbytes.nn.Linear4bit):
    """bitsandbytes' layer without repacking."""

    def forward(self, x: Any) -> Any:
        """X [..., inputs] times the weights, plus the bias: [..., outputs], in X's dtype."""
        if x.device.type != "cpu":
            return super().forward(x)
        # As in bitsandbytes, without the packing: weights are dequantised to compute_dtype and multiplied.
        asked = x.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        return bitsandbytes.matmul_4bit(asked, self.weight, bias=bias, quant_state=self.weight.quant_state).to(x.dtype)
