"""Peak memory of a training on one device, in bytes: weights, gradients, optimizer states, and activations.

Weights, gradients and optimizer states follow ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054, sections 3.1 and 5); offloading follows
DeepSpeed's estimators (`estimate_zero2_model_states_mem_needs`, https://deepspeed.readthedocs.io/en/latest/memory.html). Activations
follow Korthikanti et al., 2022 (arXiv:2205.05198, section 4), adapted: element counts instead of 16-bit bytes, no dropout masks, the
feed-forward layer of each architecture, and, where torch supports it, fused attention, which stores the mask instead of each head's
attention probabilities (Dao et al., 2022, arXiv:2205.14135). Not included: the process itself (some hundred MB on a GPU) and
fragmentation of the allocator.
"""

from dataclasses import dataclass
from math import ceil

from engine.estimate.models import FLOAT32, Model, Stack
from stages.models.projection import is_large

_ADAMW = 8.0
"""Bytes of AdamW's two moments per trainable parameter (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""
_BITS = {(4, True): 4.127, (4, False): 4.5, (8, True): 8.0, (8, False): 8.0}
"""Bits per quantised weight, by (bits, double quantisation). A block of 64 weights has a 32-bit constant, which double quantisation
reduces to 8.127 bits (Dettmers et al., 2023, arXiv:2305.14314)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by purpose."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    together: bool = True
    """Whether gradients and activations peak at the same time; else, with one micro-batch per step, gradients replace activations."""
    layer: int = 0
    """Temporary memory of one layer's backward pass; also needed by the first layer, when nearly all gradients exist."""

    @property
    def states(self) -> int:
        """Weights, gradients and optimizer states: the part that does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The peak in bytes."""
        backward = self.gradients + self.activations if self.together else max(self.gradients + self.layer, self.activations)
        return self.weights + self.optimizer + backward

    def as_data(self) -> dict[str, int]:
        """Plain JSON values, for `--json`."""
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer, "activations": self.activations}
        return {**parts, "total": self.total}


@dataclass(frozen=True)
class Layout:
    """Number formats of a training, and how its states are partitioned over devices; default: float32 on one device."""

    weight_bytes: int = FLOAT32
    """Bytes per weight of the model; also the default of the next two fields."""
    trained_bytes: int | None = None
    """Bytes per added (adapter) weight and per gradient."""
    activation_bytes: int | None = None
    """Bytes per activation."""
    optimizer_bytes: float = _ADAMW
    """Bytes of optimizer states per trained parameter."""
    zero_stage: int = 0
    """What is partitioned over the devices: 1 optimizer states, 2 also gradients, 3 also weights."""
    devices: int = 1
    offload_optimizer: bool = False
    """Optimizer states, and from stage 2 on gradients, are kept in main memory."""
    offload_parameters: bool = False
    """Stage 3 only: weights are kept in main memory, except for the module being computed."""
    quantisation_bits: int | None = None
    """4 or 8: precision of the frozen weight matrices of layers; None: not quantised."""
    double_quant: bool = True
    """Whether the constants of 4-bit blocks are quantised, too."""
    gradient_checkpointing: bool = False
    """Only the inputs of layers are kept; each layer is recomputed in the backward pass."""
    accumulates: bool = True
    """Whether gradients are accumulated over several micro-batches per optimizer step."""
    supervised: float = 1.0
    """Fraction of tokens that are supervised, i.e. count in the loss."""
    kept_by_lora: int = 0
    """Bytes per token that an adapter keeps in addition, over all layers; may be negative (engine.estimate.methods.kept_by_lora)."""
    compiled: bool = False
    """Whether the model is compiled, so that every position has logits."""
    distils: bool = False
    """Whether the loss has the divergence from a teacher, too."""

    def __post_init__(self) -> None:
        assert self.zero_stage in (0, 1, 2, 3) and self.devices > 0
        assert self.quantisation_bits in (None, 4, 8)
        assert not self.offload_optimizer or self.zero_stage >= 1
        assert not self.offload_parameters or self.zero_stage == 3

    @property
    def trained(self) -> int:
        """Bytes per trained weight and per gradient."""
        return self.trained_bytes or self.weight_bytes

    @property
    def activation(self) -> int:
        """Bytes per activation."""
        return self.activation_bytes or self.weight_bytes


def memory(model: Model, trainable: int, added: int, rows: int, length: int, layout: Layout | None = None) -> Memory:
    """Peak memory on one device for a micro-batch of ROWS rows of LENGTH tokens.

    TRAINABLE is the number of trained parameters, ADDED the number of adapter parameters in addition to those of MODEL.
    """
    layout = layout or Layout()
    # ZeRO allocates its communication buffers before the first step.
    together = layout.accumulates or layout.zero_stage > 0
    # The output layer's gradient is the first one, and exists while all layers' activations do. Of a matrix that is also the embeddings'
    # there are three at the end of the backward pass: both gradients and their sum.
    head = layout.trained * model.head.weights if trainable >= model.parameters else 0
    stored = activations(model, rows, length, layout, head) + _cast_weights(model, trainable, added, layout)
    return Memory(
        _weights(model, added, layout),
        _gradients(trainable, layout),
        _optimizer(trainable, layout),
        max(stored, 3 * head) if together and model.tied else stored,
        together,
        layer=max(_temporary(model, rows * length, length, layout), 2 * head if model.tied else 0),
    )


def _weights(model: Model, added: int, layout: Layout) -> int:
    plain = layout.weight_bytes * model.parameters + layout.trained * added
    quantised = sum(count * layer.weights for layer, count in model.inside if layer.quantisable) if layout.quantisation_bits else 0
    saved = layout.weight_bytes - _BITS.get((layout.quantisation_bits or 8, layout.double_quant), 0.0) / 8
    size = plain - saved * quantised
    if layout.zero_stage < 3:
        return ceil(size)
    # Stage 3 gathers the full weights of a module while it is computed.
    return layout.weight_bytes * model.largest + (0 if layout.offload_parameters else ceil(size / layout.devices))


def _gradients(trainable: int, layout: Layout) -> int:
    if layout.offload_optimizer and layout.zero_stage >= 2:
        return 0
    return -(-layout.trained * trainable // (layout.devices if layout.zero_stage >= 2 else 1))


def _optimizer(trainable: int, layout: Layout) -> int:
    if layout.offload_optimizer:
        return 0
    # Weights in half precision have a float32 master copy (Micikevicius et al., 2018, arXiv:1710.03740).
    each = layout.optimizer_bytes + (FLOAT32 if layout.trained < FLOAT32 else 0)
    return ceil(each * trainable / (layout.devices if layout.zero_stage >= 1 else 1))


def activations(model: Model, rows: int, length: int, layout: Layout, head: int = 0) -> int:
    """Bytes that the forward pass stores for the backward pass, plus the largest temporary memory, or the HEAD's gradient.

    The backward pass of the loss comes first, so its logits are freed before a layer is recomputed (gradient checkpointing) or a 4-bit
    matrix is dequantised.
    """
    tokens = rows * length
    # The outputs of the embedding and of the final norm, which the output layer reads.
    kept = 2 * tokens * model.hidden
    for stack in model.stacks:
        kept += stack.layers * (tokens * model.hidden if layout.gradient_checkpointing else _layer(stack, tokens, length))
    if not layout.gradient_checkpointing:
        kept += tokens * (layout.kept_by_lora + _norms(model, layout)) // layout.activation
    selected = not layout.compiled and is_large(model.vocabulary, model.hidden)
    loss = _loss(tokens * model.vocabulary, selected, layout)
    return layout.activation * kept + max(loss, _temporary(model, tokens, length, layout) + head)


def _layer(stack: Stack, tokens: int, length: int) -> int:
    """Number of elements that one layer of STACK stores for its backward pass."""
    return tokens * (stack.stored + length * stack.matrices)


def _temporary(model: Model, tokens: int, length: int, layout: Layout) -> int:
    """Bytes of a recomputed layer and of a dequantised 4-bit matrix."""
    unpacked = max(layer.weights for layer, _ in model.inside) if layout.quantisation_bits == 4 else 0
    if not layout.gradient_checkpointing:
        return layout.activation * unpacked
    again = max(_layer(stack, tokens, length) for stack in model.stacks)
    copied = tokens * (layout.kept_by_lora + _norms(model, layout)) // sum(stack.layers for stack in model.stacks)
    return layout.activation * (again + unpacked) + copied


def _norms(model: Model, layout: Layout) -> int:
    """Bytes per token by which the inputs of norms, which are in float32 at any precision, exceed other activations."""
    return (FLOAT32 - layout.activation) * model.hidden * model.norms


def _cast_weights(model: Model, trainable: int, added: int, layout: Layout) -> int:
    """Bytes of the copies of trained matrices in the precision of activations, which autocast keeps until the backward pass ends."""
    if layout.activation >= layout.trained:
        return 0
    whole = trainable >= model.parameters
    return layout.activation * (model.head.weights + sum(count * layer.weights for layer, count in model.inside) if whole else added)


def _loss(logits: int, selected: bool, layout: Layout) -> int:
    """Peak bytes of the loss over LOGITS logits (stages/models/projection.py), in float32 except for the logits themselves.

    The backward pass of the loss holds the log-probabilities of supervised tokens and two gradients; with the divergence from a teacher
    (stages/train/objectives/distill.py) six tensors of that size, as measured. Unless the output layer is applied to SELECTED positions
    only, there are two more phases: the forward pass (all logits, and the supervised ones, which half precision copies to float32), and
    the end of the backward pass (the gradient of the supervised logits, and that of all logits before and after the selection).
    """
    share, activation = layout.supervised, layout.activation
    backward = (6 if layout.distils else 3) * share * FLOAT32
    if selected:
        return ceil(logits * backward)
    copied = activation * share + (FLOAT32 * share if activation < FLOAT32 else 0)
    return ceil(logits * max(activation + copied, backward, activation * (2 + share)))
