"""The body of initialize writes a folder that transformers loads, and always the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.core.errors import UserError
from stages.initialize.body import run, texts
from stages.models.folders import load_tokenizer
from tests.stages.initialize.tiny import DECODERS, contents, make_job, make_model, parameters, write_lines
from tests.stages.initialize.tiny import texts as rows


@pytest.mark.parametrize("architecture", DECODERS)
def test_transformers_loads_model_and_tokenizer(tmp_path, architecture):
    job = make_job(tmp_path, {"rows/words": write_lines(tmp_path / "rows.jsonl", rows())})
    metrics = run(parameters(architecture), job)
    model = AutoModelForCausalLM.from_pretrained(job.output, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(job.output, local_files_only=True)
    logits = model(**tokenizer("say red:", return_tensors="pt")).logits
    assert model.config.model_type == architecture
    assert torch.isfinite(logits).all() and logits.shape[-1] == metrics["vocab_size"] == len(tokenizer)
    assert metrics["parameters"] == model.num_parameters() == sum(weight.numel() for weight in model.parameters())
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


@pytest.mark.parametrize("architecture", DECODERS)
def test_sizes_are_those_asked_for(tmp_path, architecture):
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, architecture, layers=3, heads=2), local_files_only=True)
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (3, 32, 2)
    assert model.get_input_embeddings().weight.shape == (config.vocab_size, 32)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_later_token_changes_no_earlier_logits(tmp_path, architecture):
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, architecture), local_files_only=True).eval()
    one, other = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 7, 200]])
    with torch.no_grad():
        difference = (model(one).logits - model(other).logits).abs()
    assert difference[0, :3].max() == 0 < difference[0, 3].max()


@pytest.mark.slow
def test_same_bytes_in_another_process_with_other_hash_seed(tmp_path):
    script = "from pathlib import Path; import sys; from tests.stages.initialize.tiny import make_model; make_model(Path(sys.argv[1]))"
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "other")], check=True, env=os.environ | {"PYTHONHASHSEED": other})
    assert contents(tmp_path / "other" / "output") == contents(make_model(tmp_path / "here"))


def test_another_seed_moves_the_weights_only(tmp_path):
    outputs = []
    for seed in (3, 4):
        job = make_job(tmp_path / str(seed), {"rows/words": write_lines(tmp_path / "rows.jsonl", rows())})
        run(parameters().model_copy(update={"seed": seed}), job)
        outputs.append(contents(job.output))
    assert {name for name in outputs[0] if outputs[0][name] != outputs[1][name]} == {"model.safetensors"}


def test_files_and_no_versions_or_paths_inside(tmp_path):
    files = contents(make_model(tmp_path))
    assert set(files) == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    for name, data in files.items():
        assert str(tmp_path).encode() not in data and b"transformers_version" not in data, name
    config = json.loads(files["tokenizer_config.json"])
    assert (config["eos_token"], config["pad_token"]) == ("<|endoftext|>", "<|pad|>")


def test_tasks_are_read_by_name_whatever_the_order_of_the_inputs(tmp_path):
    paths = {name: write_lines(tmp_path / f"{name}.jsonl", [{"prompt": name, "completion": "!"}]) for name in ("b", "a")}
    assert list(texts(paths)) == list(texts(dict(reversed(paths.items())))) == ["a!", "b!"]


def test_conversations_are_read_whole(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{}]}
    rows = [{"messages": [{"role": "user", "content": "Q"}, call, {"role": "tool", "content": "T"}, {"role": "assistant", "content": "A"}]}]
    assert list(texts({"chat": write_lines(tmp_path / "chat.jsonl", rows)})) == ["Q\n\nT\nA"]


def test_no_rows_is_the_users_matter(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        run(parameters(), make_job(tmp_path, {"rows/words": write_lines(tmp_path / "rows.jsonl", [])}))


def test_a_row_without_completion_is_located(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "a"}])
    with pytest.raises(UserError) as caught:
        list(texts({"words": path}))
    assert caught.value.problems[0].where.line == 2


def test_our_reading_of_the_tokenizer_agrees_with_transformers(tmp_path: Path):
    folder = make_model(tmp_path)
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in ("say red:", " two  spaces", "é ü 漢字 🙂", "a<|endoftext|>b", "line\nline"):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ours.encode(text)) == text.removesuffix("<|endoftext|>")
    assert ours.eos == theirs.eos_token_id


def test_an_encoder_and_a_decoder_load_as_what_answers_a_text(tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    folder = make_model(tmp_path, "t5", heads=2, layers=3)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True), AutoTokenizer.from_pretrained(folder)
    assert (model.config.num_layers, model.config.num_decoder_layers, model.config.d_model) == (3, 3, 32)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert model.config.decoder_start_token_id == tokenizer.pad_token_id
    answer = model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    assert answer[0, 0] == tokenizer.pad_token_id and answer.shape[1] <= 4
