"""Folders of untrained models as `from_pretrained` reads them, written without torch: a Llama and a T5 over bytes."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WIDTH, INNER, HEADS, END = 16, 32, 2, "</s>"


def _tokenizer(folder: Path) -> int:
    """Write a tokenizer that knows each byte and the end; the number of its tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens([END])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}))
    return made.get_vocab_size()


def _save(folder: Path, config: dict[str, object], shapes: dict[str, tuple[int, ...]], seed: int) -> Path:
    drawn = np.random.default_rng(seed)
    weights = {name: drawn.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _square(prefix: str, names: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{name}.weight": (WIDTH, WIDTH) for name in names.split()}


def llama(folder: Path, positions: int = 64, seed: int = 0) -> Path:
    """A model that continues a text."""
    folder.mkdir(parents=True)
    size, layer = _tokenizer(folder), "model.layers.0"
    shapes = {"model.embed_tokens.weight": (size, WIDTH), "model.norm.weight": (WIDTH,)}
    shapes |= _square(f"{layer}.self_attn", "q_proj k_proj v_proj o_proj")
    shapes |= {f"{layer}.mlp.{name}.weight": (INNER, WIDTH) for name in ("gate_proj", "up_proj")}
    shapes |= {f"{layer}.mlp.down_proj.weight": (WIDTH, INNER)}
    shapes |= {f"{layer}.{name}.weight": (WIDTH,) for name in ("input_layernorm", "post_attention_layernorm")}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": size, "hidden_size": WIDTH}
    config |= {"intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS}
    config |= {"max_position_embeddings": positions, "tie_word_embeddings": True, "eos_token_id": size - 1, "bos_token_id": size - 1}
    return _save(folder, config, shapes, seed)


def t5(folder: Path, seed: int = 0) -> Path:
    """A model that reads a text and answers it."""
    folder.mkdir(parents=True)
    size = _tokenizer(folder)
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (size, WIDTH)}
    for side, attentions in (("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"])):
        block = f"{side}.block.0.layer"
        for number, attention in enumerate(attentions):
            shapes |= _square(f"{block}.{number}.{attention}", "q k v o")
        shapes |= {f"{block}.0.SelfAttention.relative_attention_bias.weight": (8, HEADS), f"{side}.final_layer_norm.weight": (WIDTH,)}
        last = len(attentions)
        shapes |= {f"{block}.{last}.DenseReluDense.wi.weight": (INNER, WIDTH), f"{block}.{last}.DenseReluDense.wo.weight": (WIDTH, INNER)}
        shapes |= {f"{block}.{number}.layer_norm.weight": (WIDTH,) for number in range(last + 1)}
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "vocab_size": size, "d_model": WIDTH}
    config |= {"d_kv": WIDTH // HEADS, "d_ff": INNER, "num_layers": 1, "num_decoder_layers": 1, "num_heads": HEADS}
    config |= {"relative_attention_num_buckets": 8, "is_encoder_decoder": True, "tie_word_embeddings": True, "pad_token_id": 0}
    config |= {"decoder_start_token_id": 0, "eos_token_id": size - 1}
    return _save(folder, config, shapes, seed)
