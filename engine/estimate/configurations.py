"""The config.json of a model from scratch, derived from its architecture in the spec."""

from typing import Any

from engine.core.part import Part
from stages.initialize.architectures import T5, Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3


def configuration(architecture: Part, vocab_size: int) -> dict[str, Any] | None:
    """The keys of config.json that determine the model's size; None for an unknown architecture."""
    match architecture:
        case Bloom():
            values = _bloom(architecture)
        case Falcon():
            values = _falcon(architecture)
        case Gpt2():
            values = _gpt2(architecture)
        case GptNeox():
            values = _gpt_neox(architecture)
        case Llama() | Mistral() | Qwen2() | Qwen3():
            values = _llama(architecture)
        case T5():
            values = _t5(architecture)
        case _:
            return None
    return {**values, "vocab_size": vocab_size, "tie_word_embeddings": True}


def _bloom(a: Bloom) -> dict[str, Any]:
    return {"model_type": "bloom", "hidden_size": a.hidden_size, "n_layer": a.layers, "n_head": a.heads}


def _falcon(a: Falcon) -> dict[str, Any]:
    return {
        "model_type": "falcon",
        "hidden_size": a.hidden_size,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_kv_heads": a.kv_heads or a.heads,
        "new_decoder_architecture": a.new_decoder_architecture,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
    }


def _gpt2(a: Gpt2) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_embd": a.hidden_size, "n_layer": a.layers, "n_head": a.heads, "n_positions": a.max_length}


def _gpt_neox(a: GptNeox) -> dict[str, Any]:
    return {
        "model_type": "gpt_neox",
        "hidden_size": a.hidden_size,
        "intermediate_size": 4 * a.hidden_size,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
    }


def _llama(a: Llama | Mistral | Qwen2 | Qwen3) -> dict[str, Any]:
    return {
        "model_type": a.kind,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size or _gated_width(a.hidden_size),
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads or a.heads,
        **({"head_dim": a.hidden_size // a.heads} if isinstance(a, Qwen3) else {}),
    }


def _t5(a: T5) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "d_model": a.hidden_size,
        "d_kv": a.hidden_size // a.heads,
        "d_ff": a.intermediate_size or _gated_width(a.hidden_size),
        "num_layers": a.layers,
        "num_decoder_layers": a.layers,
        "num_heads": a.heads,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
    }


def _gated_width(hidden_size: int) -> int:
    """8/3 of HIDDEN_SIZE, rounded up to a multiple of 8: a gated layer has three matrices (Shazeer, 2020, arXiv:2002.05202)."""
    return -(-hidden_size * 8 // 3 // 8) * 8
