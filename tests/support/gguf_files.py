"""GGUF files of tiny Llama models, as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTROL, NORMAL = 3, 1
"""Types of tokens: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

TEXTS = ["In 2024 the cats don't sleep, 135 of them.", "Say red: red", "Sag grün: grün\n\n  and  more"]


def tiny_model(words: int) -> Any:
    """A Llama with random weights for WORDS tokens, whose embeddings are its output matrix too."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, vocab_size=words, max_position_embeddings=256, rope_theta=10_000.0, tie_word_embeddings=True)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 2
    return LlamaForCausalLM(config).eval()


def tiny_tokenizer(pre: Any) -> Any:
    """A byte-pair tokenizer with the pre-tokenizer PRE and at most 320 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS * 4, *(f"word{n} and {n}" for n in range(200))], trainer)
    return tokenizer


def write_gguf(
    path: Path, model: Any, tokenizer: Any, pre: str = "smollm", quantised: str = "F32", template: str | None = TEMPLATE
) -> Path:
    """Write MODEL and TOKENIZER; matrices in the type QUANTISED (F32, F16, Q8_0, Q4_1)."""
    import json

    import gguf

    config, kind = model.config, gguf.GGMLQuantizationType[quantised]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    content = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in SPECIAL else NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in content["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(template)
    for name, weight in tensors(model).items():
        # Norms stay in float32, as llama.cpp keeps them.
        data = gguf.quants.quantize(weight, kind) if weight.ndim == 2 else weight
        writer.add_tensor(name, data, raw_dtype=kind if weight.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(model: Any) -> dict[str, np.ndarray]:
    """MODEL's weights by their names in a GGUF file; queries and keys in the order that its rotary embeddings want."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = {name: weight.detach().numpy() for name, weight in model.state_dict().items()}
    found = {"token_embd.weight": state["model.embed_tokens.weight"], "output_norm.weight": state["model.norm.weight"]}
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for layer in range(model.config.num_hidden_layers):
        for theirs, ours in names.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in heads:
                halves = weight.reshape(heads[ours], 2, weight.shape[0] // heads[ours] // 2, weight.shape[1])
                weight = halves.swapaxes(1, 2).reshape(weight.shape)
            found[f"blk.{layer}.{ours}.weight"] = np.ascontiguousarray(weight)
    return found
