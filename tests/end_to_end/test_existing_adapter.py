"""An adapter that plain peft trained and saved is evaluated, trained further and merged, and answers as plain peft lets it answer.

So is one that `engine adopt` takes over, for an experiment that `engine import` made of a configuration of TRL and that is trained here.
"""

import csv
import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.models.folders import load_adapter, load_model
from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded
from tests.stages.generate.tiny_models import llama

pytestmark = pytest.mark.slow

SPEC = """
[experiment]
name = "{name}"

[model]
path = "base"
name = "tiny"
adapter = "adapters/theirs"

[tasks.a]
source = {{ kind = "jsonl", path = "data/a.jsonl" }}
prompts = ["Say {{{{ word }}}}:"]
teacher = {{ kind = "gold", column = "word" }}
split = {{ validation = 0.1, test = 0.2 }}
max_new_tokens = 4

[evaluation]
metrics = ["exact_match", "eos_rate"]
compare = ["base"]
{more}
[resources]
threads = 1
"""

TRAINING = """
[mixture]
tasks = ["a"]

[training]
method = { kind = "lora", r = 4, lora_alpha = 6, target_modules = ["q_proj", "down_proj"], use_dora = true }
steps = 1
global_batch = { rows = 4 }
learning_rate = 1e-9
"""

THEIRS = """
model_name_or_path: base
dataset_name: data/judged.jsonl
use_peft: true
lora_r: 4
lora_target_modules: all-linear
beta: 0.2
bf16: false
max_length: 60
max_steps: 2
per_device_train_batch_size: 4
learning_rate: 1.0e-2
output_dir: out
"""
"""A configuration of `trl dpo`."""


def theirs(base, folder):
    """An adapter as plain peft saves it, with DoRA, on two kinds of layers."""
    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], use_dora=True, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    model.save_pretrained(folder)


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("existing")
    place = Place(root)
    llama(root / "base", positions=128, seed=3)
    theirs(root / "base", root / "adapters/theirs")
    place.write("data/a.jsonl", "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(40)))
    place.write("pyproject.toml", '[project]\nname = "w"\nversion = "0"\n')
    place.write("specs/asis.toml", SPEC.format(name="asis", more="\n[merge]\n"))
    place.write("specs/further.toml", SPEC.format(name="further", more=TRAINING))
    place.git("init", "--quiet")
    place.run("dvc", "init", "--quiet")
    judged = [{"prompt": f"Say w{n}:", "chosen": f" w{n}", "rejected": f" w{n} w{n}"} for n in range(40)]
    place.write("data/judged.jsonl", "".join(json.dumps(pair) + "\n" for pair in judged))
    place.write("dpo.yaml", THEIRS)
    place.run("engine", "import", "dpo.yaml")
    place.run("engine", "adopt", "specs/dpo.toml", "--adapter", "adapters/theirs", "--name", "adopted")
    build_recorded(place)
    return place


def test_it_has_the_logits_that_plain_peft_computes(found):
    base, adapter = found.root / "base", found.root / "adapters/theirs"
    ids = AutoTokenizer.from_pretrained(base)("Say w7:")["input_ids"]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    wanted = logits(plain, ids)
    assert torch.equal(logits(load_adapter(load_model(base), adapter), ids), wanted)
    merged = AutoModelForCausalLM.from_pretrained(found.root / "artifacts/merge-asis", dtype=torch.float32)
    torch.testing.assert_close(logits(merged, ids), wanted, rtol=1e-4, atol=1e-4)
    bare = logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), ids)
    assert not torch.allclose(bare, wanted, atol=0.1), "an adapter that changes nothing would show nothing"


@pytest.mark.parametrize("predictions", ["predict-asis/predictions-a.jsonl", "predict-adopted/predictions-judged.jsonl"])
def test_its_predictions_are_those_of_plain_peft(found, predictions):
    base = found.root / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), found.root / "adapters/theirs")
    rows = [json.loads(line) for line in (found.root / "artifacts" / predictions).read_text().splitlines()]
    assert rows
    for row in rows:
        given = tokenizer(row["prompt"], return_tensors="pt")
        made = model.generate(**given, max_new_tokens=row["tokens"], do_sample=False)[0, given["input_ids"].shape[1] :]
        assert tokenizer.decode(made, skip_special_tokens=True) == row["answer"]


def test_an_adapter_changes_answers_and_the_base_of_a_comparison_has_none(found):
    rows = [json.loads(line) for line in (found.root / "artifacts/predict-asis/predictions-a.jsonl").read_text().splitlines()]
    others = (found.root / "artifacts/predict-tiny-a/predictions-a.jsonl").read_text()
    assert [json.loads(line)["answer"] for line in others.splitlines()] != [row["answer"] for row in rows], "base is the model without it"


def test_the_table_of_results_says_that_it_was_trained_elsewhere(found):
    rows = json.loads(found.run("engine", "results", "--json").stdout)["results"]
    assert {row["experiment"]: row["method"] for row in rows} == {"asis": "adopted", "adopted": "adopted", "further": "lora", "dpo": "lora"}


def test_a_training_continues_from_its_weights(found):
    before = load_file(found.root / "adapters/theirs/adapter_model.safetensors")
    after = load_file(found.root / "artifacts/train-further/adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-6)
    config = json.loads((found.root / "artifacts/train-further/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (4, 6, True)
    reads = json.loads((found.root / "artifacts/identity/evaluate-further.json").read_text())["inputs"]
    assert reads["compare/base/a"] == "artifacts/predict-tiny-theirs-a/predictions-a.jsonl", "it starts from model and adapter"
    same = [(found.root / f"artifacts/{step}/predictions-a.jsonl").read_text() for step in ("predict-tiny-theirs-a", "predict-asis")]
    assert same[0] == same[1]


def test_an_imported_training_on_pairs_learns_to_prefer_the_chosen_answers(found):
    with (found.root / "plots/train-dpo.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["loss"]) == pytest.approx(math.log(2), abs=1e-6), "it starts as its own reference"
    assert float(second["loss"]) < float(first["loss"]) and float(second["margin"]) > 0
