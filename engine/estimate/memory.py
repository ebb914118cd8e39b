"""Peak memory of a training on one device, in bytes: weights, gradients, optimizer states, and what the backward pass needs.

Weights, gradients and optimizer states follow ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054, sections 3.1 and 5); what is offloaded
follows DeepSpeed's own estimators (`estimate_zero2_model_states_mem_needs`, https://deepspeed.readthedocs.io/en/latest/memory.html).
Activations follow Korthikanti et al., 2022 (arXiv:2205.05198, section 4), adapted: numbers instead of 16-bit bytes, no dropout masks,
each architecture's own feed-forward layer, and, where torch has it, fused attention, which keeps the mask in place of each head's
probabilities (Dao et al., 2022, arXiv:2205.14135). Left out are what the process itself takes (some hundred MB on a GPU) and the
allocator's fragments.
"""

from dataclasses import dataclass
from math import ceil

from engine.estimate.models import Model

_FLOAT32 = 4
_MOMENTS = 2
"""AdamW keeps two running means for each trainable parameter (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""
_BITS = {4: 4.127, 8: 8.0}
"""Bits per quantised weight; the constants of doubly quantised 4-bit blocks take 0.127 (Dettmers et al., 2023, arXiv:2305.14314)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def states(self) -> int:
        """What does not depend on the rows."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        return self.states + self.activations

    def as_data(self) -> dict[str, int]:
        """Plain JSON values, for `--json`."""
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer, "activations": self.activations}
        return {**parts, "total": self.total}


@dataclass(frozen=True)
class Layout:
    """How the numbers of a training are kept, and how they are spread over devices; as it stands: float32 on one device."""

    weight_bytes: int = _FLOAT32
    """Bytes of a weight, a gradient and an activation."""
    zero_stage: int = 0
    """What the devices share: 1 the optimizer states, 2 the gradients too, 3 the weights too."""
    devices: int = 1
    offload_optimizer: bool = False
    """Optimizer states, and with them the gradients, lie in main memory."""
    offload_parameters: bool = False
    """Stage 3 only: the weights lie in main memory, save for the module at work."""
    quantisation_bits: int | None = None
    """4 or 8: the frozen matrices of the decoder layers are kept so."""
    gradient_checkpointing: bool = False
    """Only the layers' inputs are kept; each layer is computed again in the backward pass."""

    def __post_init__(self) -> None:
        assert self.zero_stage in (0, 1, 2, 3) and self.devices > 0
        assert self.quantisation_bits in (None, *_BITS)
        assert not self.offload_optimizer or self.zero_stage >= 1
        assert not self.offload_parameters or self.zero_stage == 3


def memory(model: Model, trainable: int, added: int, rows: int, length: int, layout: Layout | None = None) -> Memory:
    """The peak on one device where it computes ROWS rows of LENGTH tokens at once; ADDED: parameters of an adapter beside MODEL."""
    layout = layout or Layout()
    return Memory(
        _weights(model, added, layout),
        _gradients(trainable, layout),
        _optimizer(trainable, layout),
        activations(model, rows, length, layout),
    )


def _weights(model: Model, added: int, layout: Layout) -> int:
    quantised = model.layers * sum(layer.weights for layer in model.block) if layout.quantisation_bits else 0
    size = layout.weight_bytes * (model.parameters + added - quantised) + quantised * _BITS[layout.quantisation_bits or 8] / 8
    if layout.zero_stage < 3:
        return ceil(size)
    # A module's shares are brought together while it is at work.
    return layout.weight_bytes * model.largest + (0 if layout.offload_parameters else ceil(size / layout.devices))


def _gradients(trainable: int, layout: Layout) -> int:
    if layout.offload_optimizer and layout.zero_stage >= 2:
        return 0
    return -(-layout.weight_bytes * trainable // (layout.devices if layout.zero_stage >= 2 else 1))


def _optimizer(trainable: int, layout: Layout) -> int:
    if layout.offload_optimizer:
        return 0
    # Weights of half precision are learned through a float32 copy (Micikevicius et al., 2018, arXiv:1710.03740).
    copies = _MOMENTS + (layout.weight_bytes < _FLOAT32)
    return -(-_FLOAT32 * copies * trainable // (layout.devices if layout.zero_stage >= 1 else 1))


def activations(model: Model, rows: int, length: int, layout: Layout) -> int:
    """What the backward pass needs of the forward pass, and the logits with their gradient, both in float32."""
    tokens = rows * length
    layer = tokens * (model.stored + length * model.matrices)
    kept = layer + model.layers * tokens * model.hidden if layout.gradient_checkpointing else model.layers * layer
    # The embeddings' result and the last norm's, which the output layer reads.
    kept += 2 * tokens * model.hidden
    return layout.weight_bytes * kept + 2 * _FLOAT32 * tokens * model.vocabulary
