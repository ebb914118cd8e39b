"""A small chat model whose template writes the BOS token, with tied embeddings and scaled positions, and an adapter on it."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from stages.chat.formats.chat import Chat
from stages.export import Parameters
from stages.export.formats import ExportFormat
from stages.initialize import Parameters as Initialize
from stages.initialize.architectures import Llama
from stages.initialize.body import run as initialize
from stages.initialize.tokenizers import Bpe
from stages.models.folders import load_model, save_model
from stages.process.job import Job
from stages.train.methods import Lora
from stages.train.methods.base import TrainingMethod
from tests.stages.initialize.tiny import make_job, texts, write_lines

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]\n{{ message['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
SCALING = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}


def chat_model(folder: Path) -> Path:
    """A Llama with random weights that matter, its tokenizer and its chat template."""
    job = make_job(folder, {"rows/words": write_lines(folder / "rows.jsonl", texts())})
    sizes = Llama(hidden_size=64, layers=2, heads=4, max_length=256)
    initialize(Initialize(architecture=sizes, tokenizer=Bpe(vocab_size=320, bos="<s>"), seed=3), job)
    described = LlamaConfig.from_pretrained(job.output).to_dict()
    # Large weights: every update, scaling and matrix shows in the answers.
    changes = {"tie_word_embeddings": True, "rope_parameters": SCALING, "initializer_range": 0.3}
    torch.manual_seed(7)
    save_model(AutoModelForCausalLM.from_config(LlamaConfig.from_dict(described | changes), dtype=torch.float32), job.output)
    path = job.output / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    return job.output


def adapter(folder: Path, model: Path, method: TrainingMethod | None = None) -> Path:
    """An adapter on MODEL whose every update matters."""
    method = method or Lora(r=4, lora_alpha=6)
    torch.manual_seed(1)
    adapted = method.prepare(load_model(model))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "lora_B" in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    folder.mkdir(parents=True)
    method.save(adapted, folder)
    return folder


def rows(folder: Path) -> Path:
    return write_lines(folder / "test.jsonl", texts())


def settings(into: ExportFormat, **values: object) -> Parameters:
    """Random weights have near ties everywhere, so that equal answers show nothing but their probabilities."""
    into = into.model_copy(update={"min_equal_answers": into.min_equal_answers or 0.0})
    return Parameters(**{"into": into, "rows": 4, "tasks": {"say": 8}, "format": Chat(), "threads": 1, **values})


def job_of(folder: Path, **inputs: Path) -> Job:
    return make_job(folder, {role.replace("test_", "test/"): path for role, path in inputs.items()})
