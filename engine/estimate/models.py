"""The size of a model, from the dictionary of its config.json alone: parameters, linear layers, and what a backward pass needs.

The layers are those of transformers' modules (`transformers/models/<model_type>/modeling_<model_type>.py`); tests compare all of it
with real ones. What is not known here, or is no configuration at all, gives None: nothing is guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Linear:
    """A linear layer by its name, and its two widths; GPT-2's transposed ones count as such, as they do for peft."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Size of its matrix."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Size of its matrix and bias."""
        return self.weights + (self.outputs if self.bias else 0)


@dataclass(frozen=True)
class Model:
    """What a configuration says of a model's size."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    block: tuple[Linear, ...]
    """The linear layers of one decoder layer, by their names inside it; all decoder layers are alike."""
    prefix: str
    """Name of the list of decoder layers: a layer's full name is `<prefix>.<number>.<name>`."""
    head: Linear
    """The output layer."""
    tied: bool
    """Whether the output layer shares the matrix of the embeddings."""
    other: int
    """Parameters outside of linear layers: embeddings, learned positions, norms."""
    stored: int
    """Numbers per token that one decoder layer keeps for the backward pass (see engine.estimate.memory)."""
    matrices: int = 1
    """Matrices [length, length] per row that one decoder layer keeps: fused attention the mask, other attention each head's shares."""

    @property
    def parameters(self) -> int:
        """All of them, a shared matrix counted once."""
        inside = self.layers * sum(layer.parameters for layer in self.block)
        return self.other + inside + (0 if self.tied else self.head.parameters)

    @property
    def largest(self) -> int:
        """Parameters of the largest single module."""
        return max(self.head.weights, *(layer.parameters for layer in self.block))


class _Incomplete(Exception):
    """A configuration lacks a size, or gives one that is none."""


def model_of(config: Mapping[str, Any]) -> Model | None:
    """The size of the model that CONFIG describes; None where its architecture is not known here or a size is missing."""
    model_type = config.get("model_type")
    read = _READERS.get(model_type) if isinstance(model_type, str) else None
    try:
        return read(config) if read else None
    except _Incomplete:
        return None


def _size(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """The first of NAMES that CONFIG gives; published configurations differ in what they call a size."""
    value = next((config[name] for name in names if config.get(name) is not None), default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Incomplete(names[0])
    return value


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name)
    if not isinstance(value, bool | None):
        raise _Incomplete(name)
    return default if value is None else value


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
    # A layer norm has a weight and a bias; besides the layers' two there are one after the embeddings and one at the end.
    stored = _stored(2, hidden, hidden, 2 * 4 * hidden)
    model = _assembled(sizes, "transformer.h", block, 4 * hidden, outside=4 * hidden, stored=stored)
    # transformers has no fused attention for it.
    return replace(model, matrices=sizes.heads)


def _falcon(config: Mapping[str, Any]) -> Model:
    """Falcon (Almazrouei et al., 2023, arXiv:2311.16867), the layer of 7B and that of 40B and 180B."""
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
    # Attention and feed-forward layer side by side have the same input before the norms, or after the norm where there is but one.
    stored = _stored(norms - _flag(config, "parallel_attn", True), hidden, hidden, 2 * inner)
    model = _assembled(sizes, "transformer.h", block, norms=2 * norms * hidden, outside=2 * hidden, stored=stored)
    # ALiBi makes a mask for each head, and torch has no fused attention for heads that share one key and value by broadcasting.
    shared = _flag(config, "multi_query", True) and not _flag(config, "new_decoder_architecture", False)
    return replace(model, matrices=sizes.heads) if shared or _flag(config, "alibi", False) else model


def _falcon_attention(config: Mapping[str, Any], sizes: Model) -> int:
    """Width of query, key and value together."""
    width = sizes.hidden // sizes.heads
    if _flag(config, "new_decoder_architecture", False):
        return (sizes.heads + 2 * _size(config, "num_kv_heads", default=sizes.heads)) * width
    return sizes.hidden + 2 * width if _flag(config, "multi_query", True) else 3 * sizes.hidden


def _falcon_norms(config: Mapping[str, Any]) -> int:
    """Layer norms of a decoder layer."""
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
    outside = _size(config, "n_positions", "max_position_embeddings") * hidden + 2 * hidden
    # Its activation is written out as a formula, whose four intermediate results are kept beside the outcome.
    return _assembled(sizes, "transformer.h", block, norms=4 * hidden, outside=outside, stored=_stored(2, hidden, hidden, 5 * inner))


@dataclass(frozen=True)
class _Family:
    """In what the relatives of Llama differ; the defaults are those of transformers' configurations."""

    attention_bias: bool | None = False
    """On queries, keys and values; None: the configuration decides, and then for the attention's output too."""
    mlp_bias: bool = False
    """Whether the configuration may ask for biases in the feed-forward layers."""
    kv_heads: int | None = None
    head_width: int | None = None
    head_norms: int = 0
    """Norms over a head's width in each layer."""


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
    # A key that says null asks for as many as heads; a key that is not there means the family's default.
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
    # An RMS norm has a weight only, and keeps its input and the normed values; SwiGLU keeps both branches, their product and one SiLU.
    stored = _stored(4, hidden, sizes.heads * width, 4 * inner)
    return _assembled(sizes, "model.layers", block, 2 * hidden + family.head_norms * width, outside=hidden, stored=stored)


def _decoder(config: Mapping[str, Any], hidden: int, layers: Sequence[str], heads: Sequence[str], tied: bool) -> Model:
    """The sizes that all architectures have, without layers yet; TIED is the architecture's own default."""
    vocabulary, depth, count = _size(config, "vocab_size"), _size(config, *layers), _size(config, *heads)
    head = Linear("lm_head", hidden, vocabulary)
    return Model(vocabulary, hidden, depth, count, (), "", head, _flag(config, "tie_word_embeddings", tied), vocabulary * hidden, 0)


def _assembled(sizes: Model, prefix: str, block: Sequence[Linear], norms: int, outside: int, stored: int) -> Model:
    """SIZES with BLOCK in each decoder layer; NORMS: a layer's parameters in norms, OUTSIDE: those of no layer, embeddings aside."""
    other = sizes.other + sizes.layers * norms + outside
    return replace(sizes, prefix=prefix, block=tuple(block), other=other, stored=stored)


def _stored(norms: int, hidden: int, attention: int, feed_forward: int) -> int:
    """Inputs of norms, of attention and of the feed-forward layer; query, key, value and outcome of attention; the feed-forward layer."""
    return (norms + 2) * hidden + 4 * attention + feed_forward


_READERS: dict[str, Callable[[Mapping[str, Any]], Model]] = {
    "bloom": _bloom,
    "falcon": _falcon,
    "gpt2": _gpt2,
    **dict.fromkeys(_FAMILIES, _llama),
}
