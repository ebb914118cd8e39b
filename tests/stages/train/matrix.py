"""Every training method on every model family: tiny models, real optimizer steps, and what is saved loaded again."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from engine.core.part import Part
from stages.initialize.architectures import T5, Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3
from stages.models.folders import auto_class, load_adapter, load_model, save_model
from stages.train.methods import Full, Ia3, Lora, PrefixTuning, PromptTuning, Qlora
from stages.train.methods.base import TrainingMethod

TRAINS = "trains"
VOCABULARY = 120
_SIZES: dict[str, Any] = {"hidden_size": 32, "layers": 1, "heads": 4, "max_length": 64}

FAMILIES: dict[str, Any] = {
    "Bloom": Bloom(**_SIZES),
    "Falcon (7B's layer)": Falcon(**_SIZES, new_decoder_architecture=False),
    "Falcon (40B's layer)": Falcon(**_SIZES, kv_heads=2),
    "GPT-2": Gpt2(**_SIZES),
    "GPT-NeoX": GptNeox(**_SIZES),
    "Llama": Llama(**_SIZES, kv_heads=2),
    "Mistral": Mistral(**_SIZES, kv_heads=2),
    "Qwen2": Qwen2(**_SIZES, kv_heads=2),
    "Qwen3": Qwen3(**_SIZES, kv_heads=2),
    "T5": T5(**_SIZES),
}

METHODS: dict[str, TrainingMethod] = {
    "full": Full(),
    "lora": Lora(r=4),
    "lora, DoRA": Lora(r=4, use_dora=True),
    "lora, orthogonal": Lora(r=4, init_lora_weights="orthogonal"),
    "lora, PiSSA": Lora(r=4, init_lora_weights="pissa"),
    "lora, OLoRA": Lora(r=4, init_lora_weights="olora"),
    "lora, MiCA": Lora(r=4, init_lora_weights="mica"),
    "lora, all biases": Lora(r=4, bias="all"),
    "qlora, NF4": Qlora(r=4),
    "qlora, FP4": Qlora(r=4, quant_type="fp4", double_quant=False),
    "qlora, 8 bits": Qlora(r=4, bits=8),
    "prompt_tuning": PromptTuning(num_virtual_tokens=3),
    "prefix_tuning": PrefixTuning(num_virtual_tokens=3),
    "ia3": Ia3(),
}

VARIANTS: dict[str, TrainingMethod] = {
    "lora, rsLoRA": Lora(r=4, use_rslora=True),
    "lora, gaussian": Lora(r=4, init_lora_weights="gaussian"),
    "lora, PiSSA by subspace iterations, rsLoRA": Lora(r=4, init_lora_weights="pissa_niter_16", use_rslora=True),
    "lora, biases of its layers": Lora(r=4, bias="lora_only"),
    "lora, output layer in full": Lora(r=4, target_modules=("q_proj", "v_proj"), modules_to_save=("lm_head",)),
    "qlora, DoRA": Qlora(r=4, use_dora=True),
    "prompt_tuning, random": PromptTuning(num_virtual_tokens=3, init="random"),
}
"""Variants that have nothing to do with the family."""

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 2, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@cache
def folder_of(family: str) -> Path:
    """A model of FAMILY with random weights, made once a process."""
    folder = Path(mkdtemp(prefix="family-"))
    config = FAMILIES[family].config(VOCABULARY, 0, 1)
    torch.manual_seed(3)
    save_model(auto_class(config).from_config(config, dtype=torch.float32), folder)
    return folder


def loaded(family: str, method: TrainingMethod) -> Any:
    """The frozen model of FAMILY as METHOD wants it."""
    return load_model(folder_of(family), quantisation=method.quantisation)


def prepared(family: str, method: TrainingMethod) -> Any:
    model = loaded(family, method)
    torch.manual_seed(5)
    return method.prepare(model)


def loss_of(model: Any) -> torch.Tensor:
    """Cross entropy of the tokens after the first; virtual tokens stand before them."""
    targets = IDS[:, 1:].masked_fill(MASK[:, 1:] == 0, -100)
    if model.config.is_encoder_decoder:
        logits = model(input_ids=IDS, attention_mask=MASK, labels=IDS[:, 1:].contiguous(), use_cache=False).logits
    else:
        logits = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits[:, -IDS.shape[1] :][:, :-1]
    return cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1))


def train(model: Any, steps: int = 3, learning_rate: float = 0.03, around: Callable[[], Any] = nullcontext) -> list[float]:
    """The losses of a few steps of AdamW; AROUND is entered for each forward pass."""
    model.train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=learning_rate)
    losses = []
    for _ in range(steps):
        with around():
            loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def answer(model: Any) -> torch.Tensor:
    """The logits of a fixed text, without dropout."""
    model.eval()
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            return model(input_ids=IDS, attention_mask=MASK, decoder_input_ids=IDS[:, :3]).logits
        return model(input_ids=IDS[:1]).logits[:, -IDS.shape[1] :]


@cache
def base_answer(family: str, quantisation: Any) -> torch.Tensor:
    """What the untrained model says."""
    return answer(load_model(folder_of(family), quantisation=quantisation))


def again(family: str, method: TrainingMethod, folder: Path) -> Any:
    """What was saved in FOLDER, loaded as anybody loads it."""
    return load_adapter(loaded(family, method), folder) if method.makes_adapter else load_model(folder)


def continuation(model: Any) -> torch.Tensor:
    """A few tokens as the model goes on, greedily, from rows that are padded on the left."""
    ids, mask = IDS.flip(1), MASK.flip(1)
    with torch.inference_mode():
        return model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)


def outcome(method: str, family: str) -> str:
    """What the table says of METHOD on FAMILY: that it trains, or why it is refused."""
    return (METHODS | VARIANTS)[method].refused(FAMILIES[family].config(VOCABULARY, 0, 1).model_type) or TRAINS


def parts(methods: dict[str, TrainingMethod]) -> set[type[Part]]:
    return {type(method) for method in methods.values()}
