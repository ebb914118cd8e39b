"""The size of a model, computed from config.json alone: parameters, linear layers, and activations stored for the backward pass.

The layers are those of transformers' modules (`transformers/models/<model_type>/modeling_<model_type>.py`); tests compare the numbers
with real models. An unknown architecture or an invalid configuration gives None instead of a guess.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

FLOAT32 = 4
"""Bytes of a float32 number, the type of all trained weights."""


@dataclass(frozen=True)
class Linear:
    """A linear layer with its name and widths; includes GPT-2's transposed `Conv1D` layers, which peft adapts like linear ones."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    quantisable: bool = True
    """Whether quantisation applies to it; one of T5's layers must stay in full precision."""

    @property
    def weights(self) -> int:
        """Number of elements of the weight matrix."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Number of parameters: weight matrix and bias."""
        return self.weights + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class Stack:
    """A stack of identical transformer layers: a decoder's or an encoder's."""

    prefix: str
    """Name of the list of layers: a linear layer's full name is `<prefix>.<number>.<name>`."""
    layers: int
    block: tuple[Linear, ...]
    """The linear layers of one transformer layer, with names relative to it."""
    stored: int
    """Elements per token that one layer stores for the backward pass (see engine.estimate.memory)."""
    matrices: int = 1
    """[length, length] matrices per row that one layer stores: the mask with fused attention, else one per head."""


@dataclass(frozen=True)
class Model:
    """The size of a model according to its configuration."""

    vocabulary: int
    hidden: int
    heads: int
    kv_width: int
    """Total width of the cached keys over all key-value heads; that of the values is the same."""
    stacks: tuple[Stack, ...]
    head: Linear
    """The output layer."""
    embedding: str
    """Name of the embedding module inside the model."""
    tied: bool
    """Whether the output layer shares its matrix with the embeddings."""
    other: int
    """Parameters outside linear layers: embeddings, learned positions, norms."""
    norm_biases: int = 0
    """Those of them that are biases of norms."""
    norms: int = 0
    """Number of norms over the hidden size."""
    model_type: str = ""
    """transformers' name of the architecture."""

    @property
    def inside(self) -> tuple[tuple[Linear, int], ...]:
        """Every linear layer except the output layer, with its number of instances."""
        return tuple((layer, stack.layers) for stack in self.stacks for layer in stack.block)

    @property
    def parameters(self) -> int:
        """Total number of parameters; a shared matrix counts once."""
        inside = sum(count * layer.parameters for layer, count in self.inside)
        return self.other + inside + (0 if self.tied else self.head.parameters)

    @property
    def biases(self) -> int:
        """Total number of bias parameters."""
        return self.norm_biases + sum(count * layer.outputs for layer, count in self.inside if layer.bias)

    @property
    def largest(self) -> int:
        """Number of parameters of the largest linear layer."""
        return max(self.head.weights, *(layer.parameters for layer, _ in self.inside))

    @property
    def names(self) -> tuple[str, ...]:
        """The full names of all linear layers."""
        inside = (f"{s.prefix}.{number}.{layer.name}" for s in self.stacks for number in range(s.layers) for layer in s.block)
        return (*inside, self.head.name)


class _Incomplete(Exception):
    """A configuration lacks a size, or has an invalid one."""


def model_of(config: Mapping[str, Any]) -> Model | None:
    """The size of the model that CONFIG describes; None if the architecture is unknown or a size is missing or invalid."""
    model_type = config.get("model_type")
    read = _READERS.get(model_type) if isinstance(model_type, str) else None
    try:
        return replace(read(config), model_type=model_type) if read and isinstance(model_type, str) else None
    except _Incomplete:
        return None


def _size(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """The value of the first of NAMES that CONFIG contains; published configurations use different names for a size."""
    value = next((config[name] for name in names if config.get(name) is not None), default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Incomplete(names[0])
    return value


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name)
    if not isinstance(value, bool | None):
        raise _Incomplete(name)
    return default if value is None else value


@dataclass(frozen=True)
class _Sizes:
    """The sizes common to all architectures."""

    vocabulary: int
    hidden: int
    depth: int
    heads: int
    tied: bool

    def model(self, stack: Stack, embedding: str, norms: int, biased: bool = False, extra: int = 0, kv_width: int | None = None) -> Model:
        """A model with one STACK, NORMS norms in total (with biases if BIASED), and EXTRA parameters besides norms and embeddings."""
        head = Linear("lm_head", self.hidden, self.vocabulary)
        biases = norms * self.hidden if biased else 0
        other = self.vocabulary * self.hidden + norms * self.hidden + biases + extra
        width = kv_width or self.hidden
        return Model(self.vocabulary, self.hidden, self.heads, width, (stack,), head, embedding, self.tied, other, biases, norms)


def _bloom(config: Mapping[str, Any]) -> Model:
    """BLOOM (Le Scao et al., 2022, arXiv:2211.05100)."""
    hidden = _size(config, "hidden_size", "n_embed")
    block = (
        Linear("self_attention.query_key_value", hidden, 3 * hidden, True),
        Linear("self_attention.dense", hidden, hidden, True),
        Linear("mlp.dense_h_to_4h", hidden, 4 * hidden, True),
        Linear("mlp.dense_4h_to_h", 4 * hidden, hidden, True),
    )
    sizes = _decoder(config, hidden, ("n_layer", "num_hidden_layers"), ("n_head", "num_attention_heads"), True)
    # A layer norm has a weight and a bias; in addition to two per layer, one follows the embeddings and one the last layer.
    stored = _stored(2, hidden, hidden, 2 * 4 * hidden)
    # transformers has no fused attention for BLOOM.
    stack = Stack("transformer.h", sizes.depth, block, stored, sizes.heads)
    return sizes.model(stack, "word_embeddings", norms=2 * sizes.depth + 2, biased=True)


def _falcon(config: Mapping[str, Any]) -> Model:
    """Falcon (Almazrouei et al., 2023, arXiv:2311.16867): the layer of 7B, and the newer one of 40B and 180B."""
    hidden = _size(config, "hidden_size", "n_embed")
    sizes = _decoder(config, hidden, ("num_hidden_layers",), ("num_attention_heads",), True)
    inner = _size(config, "ffn_hidden_size", default=4 * hidden)
    bias = _flag(config, "bias", False)
    block = (
        Linear("self_attention.query_key_value", hidden, _falcon_attention(config, sizes), bias),
        Linear("self_attention.dense", hidden, hidden, bias),
        Linear("mlp.dense_h_to_4h", hidden, inner, bias),
        Linear("mlp.dense_4h_to_h", inner, hidden, bias),
    )
    norms = _falcon_norms(config)
    # Parallel attention and feed-forward layer share their input: before the norms, or after the norm if there is only one.
    stored = _stored(norms - _flag(config, "parallel_attn", True), hidden, hidden, 2 * inner)
    # ALiBi stores a mask per head, and torch has no fused attention for heads that share one key and value by broadcasting.
    shared = _flag(config, "multi_query", True) and not _flag(config, "new_decoder_architecture", False)
    stack = Stack("transformer.h", sizes.depth, block, stored, sizes.heads if shared or _flag(config, "alibi", False) else 1)
    # The newer layer repeats shared keys and values for every head before they are cached.
    kv_width = hidden // sizes.heads if shared else hidden
    return sizes.model(stack, "word_embeddings", norms=norms * sizes.depth + 1, biased=True, kv_width=kv_width)


def _falcon_attention(config: Mapping[str, Any], sizes: _Sizes) -> int:
    """Total width of query, key and value."""
    width = sizes.hidden // sizes.heads
    if _flag(config, "new_decoder_architecture", False):
        return (sizes.heads + 2 * _size(config, "num_kv_heads", default=sizes.heads)) * width
    return sizes.hidden + 2 * width if _flag(config, "multi_query", True) else 3 * sizes.hidden


def _falcon_norms(config: Mapping[str, Any]) -> int:
    """Number of layer norms per decoder layer."""
    if not _flag(config, "parallel_attn", True):
        return 2
    given = config.get("num_ln_in_parallel_attn")
    return 2 if given == 2 or (given is None and _flag(config, "new_decoder_architecture", False)) else 1


def _gpt2(config: Mapping[str, Any]) -> Model:
    """GPT-2 (Radford et al., 2019)."""
    if _flag(config, "add_cross_attention", False):
        raise _Incomplete("cross attention")
    hidden = _size(config, "n_embd", "hidden_size")
    inner = _size(config, "n_inner", default=4 * hidden)
    block = (
        Linear("attn.c_attn", hidden, 3 * hidden, True),
        Linear("attn.c_proj", hidden, hidden, True),
        Linear("mlp.c_fc", hidden, inner, True),
        Linear("mlp.c_proj", inner, hidden, True),
    )
    sizes = _decoder(config, hidden, ("n_layer", "num_hidden_layers"), ("n_head", "num_attention_heads"), True)
    positions = _size(config, "n_positions", "max_position_embeddings") * hidden
    # The activation is written out as a formula, which stores four intermediate results and the output.
    stack = Stack("transformer.h", sizes.depth, block, _stored(2, hidden, hidden, 5 * inner))
    return sizes.model(stack, "wte", norms=2 * sizes.depth + 1, biased=True, extra=positions)


def _gpt_neox(config: Mapping[str, Any]) -> Model:
    """GPT-NeoX (Black et al., 2022, arXiv:2204.06745) and Pythia."""
    hidden, inner = _size(config, "hidden_size"), _size(config, "intermediate_size")
    bias = _flag(config, "attention_bias", True)
    block = (
        Linear("attention.query_key_value", hidden, 3 * hidden, bias),
        Linear("attention.dense", hidden, hidden, bias),
        Linear("mlp.dense_h_to_4h", hidden, inner, True),
        Linear("mlp.dense_4h_to_h", inner, hidden, True),
    )
    sizes = _decoder(config, hidden, ("num_hidden_layers",), ("num_attention_heads",), False)
    # Partial rotary embedding concatenates new queries and keys, and the old ones stay alive, since they share storage with the values.
    stored = _stored(2 - _flag(config, "use_parallel_residual", True), hidden, hidden, 2 * inner) + 2 * hidden
    return sizes.model(Stack("gpt_neox.layers", sizes.depth, block, stored), "embed_in", norms=2 * sizes.depth + 1, biased=True)


def _t5(config: Mapping[str, Any]) -> Model:
    """T5 (Raffel et al., 2019, arXiv:1910.10683) and T5 1.1; assumes encoder and decoder rows of the same length."""
    hidden, inner = _size(config, "d_model"), _size(config, "d_ff")
    sizes = _decoder(config, hidden, ("num_layers",), ("num_heads",), True)
    width = sizes.heads * _size(config, "d_kv", default=hidden // sizes.heads)
    activation = config.get("feed_forward_proj", "relu")
    gated = isinstance(activation, str) and activation.startswith("gated-")
    buckets = _size(config, "relative_attention_num_buckets", default=32) * sizes.heads
    depth = _size(config, "num_decoder_layers", default=sizes.depth)
    # Gated: both branches, their product, and for GELU the intermediate results of its formula.
    kept = (8 if "gelu" in activation else 4) * inner if gated else 2 * inner
    attention = hidden + 4 * width
    encoder = (*_t5_attention("layer.0.SelfAttention", hidden, width), *_t5_feed_forward(1, hidden, inner, gated))
    decoder = (
        *_t5_attention("layer.0.SelfAttention", hidden, width),
        *_t5_attention("layer.1.EncDecAttention", hidden, width),
        *_t5_feed_forward(2, hidden, inner, gated),
    )
    # An RMS norm stores its input and its output; fused attention does not support learned relative positions.
    stacks = (
        Stack("encoder.block", sizes.depth, encoder, 5 * hidden + attention + kept, sizes.heads),
        Stack("decoder.block", depth, decoder, 7 * hidden + 2 * attention + kept, 2 * sizes.heads),
    )
    norms = 2 * sizes.depth + 3 * depth + 2
    return replace(sizes.model(stacks[0], "shared", norms=norms, extra=2 * buckets, kv_width=width), stacks=stacks)


def _t5_attention(name: str, hidden: int, width: int) -> tuple[Linear, ...]:
    return (*(Linear(f"{name}.{letter}", hidden, width) for letter in "qkv"), Linear(f"{name}.o", width, hidden))


def _t5_feed_forward(number: int, hidden: int, inner: int, gated: bool) -> tuple[Linear, ...]:
    name = f"layer.{number}.DenseReluDense"
    first = ("wi_0", "wi_1") if gated else ("wi",)
    return (*(Linear(f"{name}.{wi}", hidden, inner) for wi in first), Linear(f"{name}.wo", inner, hidden, quantisable=False))


@dataclass(frozen=True)
class _Family:
    """Differences between Llama and its relatives; the defaults are those of transformers' configurations."""

    attention_bias: bool | None = False
    """Whether query, key and value have biases; None: the configuration decides, also for the attention output."""
    mlp_bias: bool = False
    """Whether the configuration can enable biases in the feed-forward layers."""
    kv_heads: int | None = None
    head_width: int | None = None
    head_norms: int = 0
    """Number of norms over the head width per layer."""


_FAMILIES = {
    "llama": _Family(attention_bias=None, mlp_bias=True),
    "mistral": _Family(kv_heads=8),
    "qwen2": _Family(attention_bias=True, kv_heads=32),
    "qwen3": _Family(attention_bias=None, kv_heads=32, head_width=128, head_norms=2),
}


def _llama(config: Mapping[str, Any]) -> Model:
    """Llama (Touvron et al., 2023, arXiv:2302.13971) and its relatives Mistral, Qwen2 and Qwen3."""
    family = _FAMILIES[config["model_type"]]
    hidden, inner = _size(config, "hidden_size"), _size(config, "intermediate_size")
    sizes = _decoder(config, hidden, ("num_hidden_layers",), ("num_attention_heads",), False)
    # null means as many key-value heads as heads; a missing key means the family's default.
    missing = None if "num_key_value_heads" in config else family.kv_heads
    kv_heads = _size(config, "num_key_value_heads", default=missing or sizes.heads)
    width = _size(config, "head_dim", default=family.head_width or hidden // sizes.heads)
    chosen = _flag(config, "attention_bias", False)
    bias = chosen if family.attention_bias is None else family.attention_bias
    mlp_bias = family.mlp_bias and _flag(config, "mlp_bias", False)
    block = (
        Linear("self_attn.q_proj", hidden, sizes.heads * width, bias),
        Linear("self_attn.k_proj", hidden, kv_heads * width, bias),
        Linear("self_attn.v_proj", hidden, kv_heads * width, bias),
        Linear("self_attn.o_proj", sizes.heads * width, hidden, family.attention_bias is None and chosen),
        Linear("mlp.gate_proj", hidden, inner, mlp_bias),
        Linear("mlp.up_proj", hidden, inner, mlp_bias),
        Linear("mlp.down_proj", inner, hidden, mlp_bias),
    )
    # An RMS norm has no bias and stores its input and output; SwiGLU stores both branches, their product and the SiLU output.
    normed = (2 * sizes.heads + kv_heads) * width if family.head_norms else 0
    stored = _stored(4, hidden, sizes.heads * width, 4 * inner) + normed
    stack = Stack("model.layers", sizes.depth, block, stored)
    extra = sizes.depth * family.head_norms * width
    return sizes.model(stack, "embed_tokens", norms=2 * sizes.depth + 1, extra=extra, kv_width=kv_heads * width)


def _decoder(config: Mapping[str, Any], hidden: int, layers: Sequence[str], heads: Sequence[str], tied: bool) -> _Sizes:
    """The common sizes of a model in CONFIG; TIED is the architecture's default for tied embeddings."""
    vocabulary, depth, count = _size(config, "vocab_size"), _size(config, *layers), _size(config, *heads)
    return _Sizes(vocabulary, hidden, depth, count, _flag(config, "tie_word_embeddings", tied))


def _stored(norms: int, hidden: int, attention: int, feed_forward: int) -> int:
    """Elements per token that a layer stores: inputs of norms, attention and feed-forward; q, k, v, output of attention; feed-forward."""
    return (norms + 2) * hidden + 4 * attention + feed_forward


_READERS: dict[str, Callable[[Mapping[str, Any]], Model]] = {
    "bloom": _bloom,
    "falcon": _falcon,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "t5": _t5,
    **dict.fromkeys(_FAMILIES, _llama),
}
