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

from engine.estimate.models import Model, Stack

FLOAT32 = 4
"""Bytes of a number, which each weight that is learnt has."""
_ADAMW = 8.0
"""Bytes of AdamW's two running means for each trainable parameter (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""
_BITS = {(4, True): 4.127, (4, False): 4.5, (8, True): 8.0, (8, False): 8.0}
"""Bits per quantised weight, by bits and double quantisation; a block of 64 has a constant of 32 bits, which double quantisation makes
8.127 (Dettmers et al., 2023, arXiv:2305.14314)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    together: bool = True
    """Whether gradients lie beside activations; else they come as these go, which is so where a step is one micro-batch."""
    layer: int = 0
    """What the backward pass of one layer needs for a moment, the first one's too, when nearly all gradients are there."""

    @property
    def states(self) -> int:
        """What does not depend on the rows."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The peak."""
        backward = self.gradients + self.activations if self.together else max(self.gradients + self.layer, self.activations)
        return self.weights + self.optimizer + backward

    def as_data(self) -> dict[str, int]:
        """Plain JSON values, for `--json`."""
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer, "activations": self.activations}
        return {**parts, "total": self.total}


@dataclass(frozen=True)
class Layout:
    """How the numbers of a training are kept, and how they are spread over devices; as it stands: float32 on one device."""

    weight_bytes: int = FLOAT32
    """Bytes of a weight of the model, and, where nothing else is said, of all else but the optimizer's states."""
    trained_bytes: int | None = None
    """Bytes of a weight that is added, and of a gradient."""
    activation_bytes: int | None = None
    optimizer_bytes: float = _ADAMW
    """Bytes of the optimizer's states for each trained number."""
    zero_stage: int = 0
    """What the devices share: 1 the optimizer states, 2 the gradients too, 3 the weights too."""
    devices: int = 1
    offload_optimizer: bool = False
    """Optimizer states, and with them the gradients, lie in main memory."""
    offload_parameters: bool = False
    """Stage 3 only: the weights lie in main memory, save for the module at work."""
    quantisation_bits: int | None = None
    """4 or 8: the frozen matrices of the layers are kept so."""
    double_quant: bool = True
    """Whether the constants of 4-bit blocks are quantised as well."""
    gradient_checkpointing: bool = False
    """Only the layers' inputs are kept; each layer is computed again in the backward pass."""
    accumulates: bool = True
    """Whether a step is several micro-batches, whose gradients are kept while the next one is computed."""
    supervised: float = 1.0
    """Share of the tokens that something is learnt from: the loss is taken of these alone."""

    def __post_init__(self) -> None:
        assert self.zero_stage in (0, 1, 2, 3) and self.devices > 0
        assert self.quantisation_bits in (None, 4, 8)
        assert not self.offload_optimizer or self.zero_stage >= 1
        assert not self.offload_parameters or self.zero_stage == 3

    @property
    def trained(self) -> int:
        """Bytes of a trained weight and of its gradient."""
        return self.trained_bytes or self.weight_bytes

    @property
    def activation(self) -> int:
        """Bytes of an activation."""
        return self.activation_bytes or self.weight_bytes


def memory(model: Model, trainable: int, added: int, rows: int, length: int, layout: Layout | None = None) -> Memory:
    """The peak on one device where it computes ROWS rows of LENGTH tokens at once; ADDED: parameters of an adapter beside MODEL."""
    layout = layout or Layout()
    return Memory(
        _weights(model, added, layout),
        _gradients(trainable, layout),
        _optimizer(trainable, layout),
        activations(model, rows, length, layout),
        # ZeRO keeps room for what it exchanges from the first step on.
        together=layout.accumulates or layout.zero_stage > 0,
        layer=_momentary(model, rows * length, length, layout),
    )


def _weights(model: Model, added: int, layout: Layout) -> int:
    plain = layout.weight_bytes * model.parameters + layout.trained * added
    quantised = sum(count * layer.weights for layer, count in model.inside if layer.quantisable) if layout.quantisation_bits else 0
    saved = layout.weight_bytes - _BITS.get((layout.quantisation_bits or 8, layout.double_quant), 0.0) / 8
    size = plain - saved * quantised
    if layout.zero_stage < 3:
        return ceil(size)
    # A module's shares are brought together while it is at work.
    return layout.weight_bytes * model.largest + (0 if layout.offload_parameters else ceil(size / layout.devices))


def _gradients(trainable: int, layout: Layout) -> int:
    if layout.offload_optimizer and layout.zero_stage >= 2:
        return 0
    return -(-layout.trained * trainable // (layout.devices if layout.zero_stage >= 2 else 1))


def _optimizer(trainable: int, layout: Layout) -> int:
    if layout.offload_optimizer:
        return 0
    # Weights of half precision are learned through a float32 copy (Micikevicius et al., 2018, arXiv:1710.03740).
    each = layout.optimizer_bytes + (FLOAT32 if layout.trained < FLOAT32 else 0)
    return ceil(each * trainable / (layout.devices if layout.zero_stage >= 1 else 1))


def activations(model: Model, rows: int, length: int, layout: Layout) -> int:
    """What the backward pass needs of the forward pass, and beside it the largest of what is needed for a moment only.

    The loss is computed first, then the layers backwards, the last one first: its logits are gone when a layer is computed again
    (checkpointed), or a matrix of 4 bits is unpacked.
    """
    tokens = rows * length
    # The embeddings' result and the last norm's, which the output layer reads.
    kept = 2 * tokens * model.hidden
    for stack in model.stacks:
        kept += stack.layers * (tokens * model.hidden if layout.gradient_checkpointing else _layer(stack, tokens, length))
    return layout.activation * kept + max(_loss(tokens * model.vocabulary, layout), _momentary(model, tokens, length, layout))


def _layer(stack: Stack, tokens: int, length: int) -> int:
    """Numbers that one layer of STACK keeps for its backward pass."""
    return tokens * (stack.stored + length * stack.matrices)


def _momentary(model: Model, tokens: int, length: int, layout: Layout) -> int:
    """A layer that is computed again, and a matrix of 4 bits that is unpacked."""
    again = max(_layer(stack, tokens, length) for stack in model.stacks) if layout.gradient_checkpointing else 0
    unpacked = max(layer.weights for layer, _ in model.inside) if layout.quantisation_bits == 4 else 0
    return layout.activation * (again + unpacked)


def _loss(logits: int, layout: Layout) -> int:
    """What the loss of so many LOGITS takes at most (stages/train/loop/loss.py), in float32 but for the logits themselves.

    Forwards the logits, a float32 copy of the supervised ones, and their logarithms of probabilities; backwards, when the logits are
    gone, these logarithms with two gradients; at the end the gradient of the supervised logits, and that of all before and after a cut.
    """
    learnt = layout.supervised * FLOAT32
    return ceil(logits * max(layout.activation + 2 * learnt, 3 * learnt, layout.activation * (2 + layout.supervised)))
