"""SFT, then DPO by a new adapter on the merged model: its statement names that model, on which plain peft gives the same answers."""

import csv
import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.end_to_end.conftest import Place, address, told
from tests.end_to_end.one_process import build_recorded
from tests.stages.generate.tiny_models import llama

pytestmark = pytest.mark.slow

SFT = """
[experiment]
name = "sft"

[model]
path = "base"
name = "tiny"

[tasks.a]
source = { kind = "jsonl", path = "data/pairs.jsonl" }
layout = "preference"
split = { validation = 0.1, test = 0.2 }
max_new_tokens = 6

[mixture]
tasks = ["a"]

[training]
method = { kind = "lora", r = 4, lora_alpha = 32 }
steps = 6
global_batch = { rows = 8 }
learning_rate = 0.02

[resources]
threads = 1
"""
DPO = (
    SFT.replace('name = "sft"', 'name = "dpo"')
    .replace('path = "base"\nname = "tiny"', 'experiment = "sft"\nmerged = true')
    .replace("r = 4, lora_alpha = 32 }", 'r = 2, lora_alpha = 16, target_modules = ["q_proj", "down_proj"] }\nobjective = "dpo"')
    .replace("[resources]", '[evaluation]\ncompare = ["base"]\n\n[resources]')
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("merged"))
    llama(place.root / "base", positions=128, seed=3)
    pairs = [{"prompt": f"Say w{n}:", "chosen": f" w{n}", "rejected": f" w{n} w{n}"} for n in range(40)]
    place.write("data/pairs.jsonl", "".join(json.dumps(pair) + "\n" for pair in pairs))
    place.write("pyproject.toml", '[project]\nname = "w"\nversion = "0"\n')
    place.write("specs/sft.toml", SFT)
    place.write("specs/dpo.toml", DPO)
    place.git("init", "--quiet")
    place.run("dvc", "init", "--quiet")
    build_recorded(place)
    return place


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits


def opened(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def answered(place, model):
    """The rows of the evaluation with what MODEL says to them."""
    tokenizer = AutoTokenizer.from_pretrained(place.root / "base")
    for line in (place.root / "artifacts/predict-dpo/predictions-a.jsonl").read_text().splitlines():
        row = json.loads(line)
        given = tokenizer(row["prompt"], return_tensors="pt")
        made = model.generate(**given, max_new_tokens=max(row["tokens"], 1), do_sample=False)[0, given["input_ids"].shape[1] :]
        yield row, tokenizer.decode(made, skip_special_tokens=True)


def test_its_statement_names_the_merged_model_and_so_does_that_of_its_reference(place):
    merged = told(place.root / "artifacts/merge-sft.provenance.json")
    assert merged.inputs["model"]["path"] == "base" and merged.inputs["adapter/sft"]["path"] == "artifacts/train-sft"
    steps = [told(place.root / f"artifacts/{name}.provenance.json").inputs for name in ("train-dpo", "reference-sft-merged-a")]
    assert all(step["model"]["path"] == "artifacts/merge-sft" and "adapter" not in step for step in steps)
    assert len({step["model"]["md5"] for step in steps}) == 1
    with (place.root / "plots/train-dpo.csv").open() as file:
        first, *_ = csv.DictReader(file)
    assert float(first["loss"]) == pytest.approx(0.693147, abs=1e-5), "the merged model is its own reference"
    (listed,) = [one for one in json.loads(place.run("engine", "adapters", "--json").stdout)["adapters"] if one["experiment"] == "dpo"]
    assert listed["base"] == "merge-sft"


def test_the_merged_model_is_the_base_with_the_adapter_that_was_merged(place):
    ids = AutoTokenizer.from_pretrained(place.root / "base")("Say w7:")["input_ids"]
    wanted = logits(PeftModel.from_pretrained(opened(place.root / "base"), place.root / "artifacts/train-sft"), ids)
    torch.testing.assert_close(logits(opened(place.root / "artifacts/merge-sft"), ids), wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(opened(place.root / "base"), ids), wanted, atol=0.1), "an adapter that changes nothing shows nothing"


def test_plain_peft_on_the_merged_model_answers_alike(place, tmp_path, monkeypatch):
    model = PeftModel.from_pretrained(opened(place.root / "artifacts/merge-sft"), place.root / "artifacts/train-dpo").eval()
    found = list(answered(place, model))
    assert any(row["answer"] for row, _ in found)
    for row, answer in found:
        assert answer == row["answer"]
    ids = AutoTokenizer.from_pretrained(place.root / "base")("Say w7:")["input_ids"]
    wrong = PeftModel.from_pretrained(opened(place.root / "base"), place.root / "artifacts/train-dpo").eval()
    assert not torch.allclose(logits(wrong, ids), logits(model, ids), atol=0.1), "on the base of sft it is another model"
    # What others are given has the merged model beside it.
    digest = address(place.root / "artifacts/train-dpo.provenance.json")
    place.run("engine", "adapters", "--fetch", digest, "--output", str(tmp_path / "fetched"))
    monkeypatch.chdir(tmp_path / "fetched")  # its base is named from there
    fetched = AutoPeftModelForCausalLM.from_pretrained(".", dtype=torch.float32).eval()
    assert torch.equal(logits(fetched, ids), logits(model, ids))
