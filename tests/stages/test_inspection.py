"""What inspect says of a row is what the models themselves say, and what training would learn from."""

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.core.errors import UserError
from stages.inspection import inspect
from stages.models.added_tokens import extend
from stages.models.folders import load_adapter, load_model, load_tokenizer
from stages.process.job import Job
from stages.tokens.files import TokenWriter
from stages.train.methods import Lora, PromptTuning
from stages.vocabulary import Parameters as Vocabulary
from stages.vocabulary.body import run as add_tokens
from tests.stages.initialize.tiny import make_model, texts
from tests.support.warm import warm_python


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, an adapter on it, and a token file whose completions are supervised."""
    root = tmp_path_factory.mktemp("inspect")
    model = make_model(root / "model", "llama", initializer_range=0.3)
    adapted = Lora(r=4).prepare(load_model(model))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    (root / "adapter").mkdir()
    Lora(r=4).save(adapted, root / "adapter")
    tokenizer = load_tokenizer(model)
    with TokenWriter(root / "train.safetensors") as writer:
        for row in texts(5):
            prompt, completion = tokenizer.encode(row["prompt"]), [*tokenizer.encode(row["completion"]), tokenizer.eos]
            mask = [0] * len(prompt) + [1] * len(completion)
            writer.write(np.array(prompt + completion, np.int32), np.array(mask, np.uint8))
    return {"model": str(model), "adapter": str(root / "adapter"), "tokens": str(root / "train.safetensors"), "threads": 1}


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("t5") / "model", "t5", layers=1)


def test_every_position_is_there_with_its_text_and_its_mask(place):
    answer = inspect({**place, "row": 2})
    row, tokenizer = texts(5)[2], load_tokenizer(Path(place["model"]))
    assert "".join(p["token"] for p in answer["positions"]) == f"{row['prompt']}{row['completion']}<|endoftext|>"
    learned = [p["token"] for p in answer["positions"] if p["supervised"]]
    assert "".join(learned) == f"{row['completion']}<|endoftext|>" and answer["positions"][-1]["id"] == tokenizer.eos
    assert answer["rows"] == 5 and answer["positions"][0]["base"] is None and answer["positions"][0]["trained"] is None


def test_the_numbers_are_those_of_both_models(place):
    answer = inspect({**place, "row": 1})
    ids = torch.tensor([[p["id"] for p in answer["positions"]]])
    base = load_model(Path(place["model"]))
    for name, model in (("base", base), ("trained", load_adapter(load_model(Path(place["model"])), Path(place["adapter"])))):
        with torch.no_grad():
            shares = model(ids).logits[0].softmax(-1)
            labels = torch.where(torch.tensor([[p["supervised"] for p in answer["positions"]]]), ids, -100)
            loss = float(model(input_ids=ids, labels=labels).loss)
        assert answer["loss"][name] == pytest.approx(loss, abs=1e-4)
        for number, position in enumerate(answer["positions"][1:], 1):
            said = position[name]
            assert said["truth_probability"] == pytest.approx(float(shares[number - 1, ids[0, number]]), abs=1e-5)
            assert said["truth_loss"] == pytest.approx(-math.log(float(shares[number - 1, ids[0, number]])), abs=1e-3)
            assert said["says_probability"] == pytest.approx(float(shares[number - 1].max()), abs=1e-5)
            assert (said["truth_rank"] == 1) == (said["says_probability"] == said["truth_probability"])
    assert answer["loss"]["base"] != answer["loss"]["trained"]


def test_tokens_of_the_spec_have_the_embeddings_that_training_began_with(place, tmp_path):
    """The new tokens stand in the row, one of them learned; the adapter saved its own embeddings for them."""
    model, vocabulary, adapter = Path(place["model"]), tmp_path / "vocabulary", tmp_path / "adapter"
    vocabulary.mkdir()
    files = {f"tokenizer/{name}": model / name for name in ("tokenizer.json", "tokenizer_config.json")}
    add_tokens(Vocabulary(special_tokens=("<|human|>", "<|bot|>")), Job("vocabulary", files, vocabulary, None, tmp_path))
    adapted = Lora(r=4).prepare(extended(model, vocabulary))
    for name, weight in adapted.named_parameters():
        if "trainable_tokens_delta" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapter.mkdir()
    Lora(r=4).save(adapted, adapter)
    ids = load_tokenizer(vocabulary).encode("<|human|>say red:<|bot|> red")
    with TokenWriter(tmp_path / "train.safetensors") as writer:
        writer.write(np.array(ids, np.int32), np.ones(len(ids), np.uint8))

    request = {"model": str(model), "vocabulary": str(vocabulary), "adapter": str(adapter), "row": 0, "threads": 1}
    answer = inspect({**request, "tokens": str(tmp_path / "train.safetensors")})

    assert "".join(p["token"] for p in answer["positions"]) == "<|human|>say red:<|bot|> red"
    for name, one in (("base", extended(model, vocabulary)), ("trained", adapted.eval())):
        with torch.no_grad():
            loss = float(one(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss)
        assert answer["loss"][name] == pytest.approx(loss, abs=1e-4)
    assert answer["loss"]["base"] != answer["loss"]["trained"]


def extended(model: Path, vocabulary: Path):
    made = load_model(model)
    extend(made, vocabulary)
    return made


@pytest.mark.parametrize("method", [Lora(r=4), PromptTuning(num_virtual_tokens=2, init="random")], ids=lambda method: method.kind)
def test_a_model_with_an_encoder_says_the_answer_alone(tmp_path, t5, method):
    """From its first token on; what the encoder reads is shown, and nobody says it. transformers' own loss knows the shift."""
    adapted = method.prepare(load_model(t5))
    (tmp_path / "adapter").mkdir()
    for name, weight in adapted.named_parameters():
        if weight.requires_grad and "lora_A" not in name:
            torch.nn.init.normal_(weight, std=0.5)
    method.save(adapted, tmp_path / "adapter")
    question, reply = load_tokenizer(t5).encode("say say red:"), load_tokenizer(t5).encode(" red cat")
    with TokenWriter(tmp_path / "train.safetensors") as writer:
        mask = [0] * len(question) + [1] * len(reply)
        writer.write(np.array(question + reply, np.int32), np.array(mask, np.uint8), len(question))

    request = {"model": str(t5), "adapter": str(tmp_path / "adapter"), "row": 0, "threads": 1}
    answer = inspect({**request, "tokens": str(tmp_path / "train.safetensors")})

    assert [p["id"] for p in answer["positions"]] == question + reply
    for name, model in (("base", load_model(t5)), ("trained", adapted.eval())):
        assert [p[name] is not None for p in answer["positions"]] == [False] * len(question) + [True] * len(reply)
        given = torch.tensor([question])
        with torch.no_grad():
            loss = float(model(input_ids=given, attention_mask=torch.ones_like(given), labels=torch.tensor([reply])).loss)
        assert answer["loss"][name] == pytest.approx(loss, abs=1e-4)
    assert answer["loss"]["base"] != answer["loss"]["trained"]


def test_a_row_that_is_not_there(place):
    with pytest.raises(UserError, match="row 5 is out of range: this file has 5 rows"):
        inspect({**place, "row": 5})


def near(one, other) -> bool:
    """Whether two JSON values are equal up to rounding: another process may compute with other instructions."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-4, abs=1e-5)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(near, one, other))
    return one == other


def test_as_a_process_of_its_own(place):
    command = [warm_python(), "-m", "stages.inspection"]

    def ask(**values):
        given = json.dumps({**place, "numerics": "portable", **values})
        return subprocess.run(
            command, input=given, capture_output=True, text=True, env=os.environ, cwd=Path(__file__).parents[2], check=False
        )

    done = ask(row=0)
    assert done.returncode == 0 and near(json.loads(done.stdout), inspect({**place, "row": 0}))
    refused = ask(row=0, model=place["model"] + "-gone")
    assert refused.returncode == 1 and refused.stderr.startswith("error: ") and "Traceback" not in refused.stderr and not refused.stdout
