"""Imports of trainings on pairs: DPO, ORPO and SimPO as axolotl, LLaMA-Factory and TRL configure them."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import Location, UserError
from engine.importing.documents import read
from engine.importing.exporting import export
from engine.importing.importing import recognised
from engine.spec.load import load_spec
from stages.generate.selecting import Selected
from tests.support import commands

ROOT = Path(__file__).parents[3]
AXOLOTL = "base_model: a/b\ndatasets: [{path: a/pairs, type: chatml.intel}]\nsequence_len: 64\nmicro_batch_size: 1\nlearning_rate: 1e-5\n"
FACTORY = "model_name_or_path: a/b\nstage: dpo\ndo_train: true\nfinetuning_type: full\ndataset: judged\ntemplate: chatml\n"
KTO = FACTORY.replace("stage: dpo", "stage: kto").replace("judged", "thumbs")
TRL = "model_name_or_path: a/b\ndataset_name: a/pairs\nbeta: 0.1\n"


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        (AXOLOTL + "rl: dpo", {"kind": "dpo"}),
        (AXOLOTL + "rl: ipo\nrl_beta: 0.2", {"kind": "dpo", "loss": "ipo", "beta": 0.2}),
        (AXOLOTL + "rl: dpo\ntrl: {beta: 0.4}\nrl_beta: 0.2\ndpo_loss_type: [hinge]", {"kind": "dpo", "loss": "hinge", "beta": 0.4}),
        (AXOLOTL + "rl: dpo\ndpo_label_smoothing: 0.1", {"kind": "dpo"}),
        (
            AXOLOTL + "rl: dpo\ndpo_loss_type: [robust]\ndpo_label_smoothing: 0.1",
            {"kind": "dpo", "loss": "robust", "label_smoothing": 0.1},
        ),
        (AXOLOTL + "rl: orpo\norpo_alpha: 0.3", {"kind": "orpo", "weight": 0.3}),
        (AXOLOTL + "rl: simpo\nrl_beta: 2.5\nsimpo_gamma: 0.5\ncpo_alpha: 0", {"kind": "simpo", "beta": 2.5, "margin": 0.5}),
        (FACTORY + "dpo_label_smoothing: 0.1", {"kind": "dpo", "label_smoothing": 0.1}),
        (FACTORY + "pref_loss: orpo\npref_beta: 0.2", {"kind": "orpo", "weight": 0.2}),
        (FACTORY + "pref_loss: simpo", {"kind": "simpo", "beta": 0.1, "margin": 0.5}),
        (KTO + "pref_beta: 0.3\nkto_chosen_weight: 1.5", {"kind": "kto", "beta": 0.3, "desirable_weight": 1.5}),
        (TRL + "label_smoothing: 0.2", {"kind": "dpo"}),
        (TRL + "loss_type: robust\nlabel_smoothing: 0.2", {"kind": "dpo", "loss": "robust", "label_smoothing": 0.2}),
        (TRL + "loss_type: robust", {"kind": "dpo"}),
        (TRL + "loss_type: kto", {"kind": "kto"}),
        (
            TRL + "undesirable_weight: 1.3\nloss_type: apo_zero_unpaired",
            {"kind": "kto", "loss": "apo_zero_unpaired", "undesirable_weight": 1.3},
        ),
        (TRL + "loss_type: ipo", {"kind": "dpo", "loss": "ipo"}),
    ],
)
def test_a_loss_of_pairs_becomes_the_objective_with_this_strength(text, objective, imported, write):
    (spec,) = imported(write(text + "\n")).files.values()
    assert tomllib.loads(spec)["training"]["objective"] == objective


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        (AXOLOTL + "rl: grpo", "rl: training on rewards (grpo)"),
        (AXOLOTL + "rl: dpo\ndpo_loss_type: [sigmoid, sft]", "dpo_loss_type: the loss sigmoid, sft of pairs"),
        (AXOLOTL + "rl: dpo\ndpo_use_weighting: true", "dpo_use_weighting: weights of pairs (WPO)"),
        (AXOLOTL + "rl: simpo\nsimpo_gamma: 1.0", "cpo_alpha: SimPO with the cross entropy"),
        (AXOLOTL + "rl: simpo\ncpo_alpha: 0", "simpo_gamma must be a number: axolotl has no default"),
        (AXOLOTL + "rl: dpo\nsample_packing: true", "sample_packing must be false for rl: dpo"),
        (AXOLOTL.replace("chatml.intel", "zephyr.nectar") + "rl: dpo", "datasets[0].type: the data set type zephyr.nectar"),
        (FACTORY + "pref_ftx: 0.5", "pref_ftx: the cross entropy of the chosen answers in addition to the loss"),
        (FACTORY + "pref_loss: kto_pair", "pref_loss: the loss kto_pair of pairs"),
        (FACTORY + "ref_model: a/c", "ref_model: another reference model"),
        (FACTORY.replace("judged", "pairs"), "ranking: answers that are no pairs in stage dpo"),
        (FACTORY.replace("stage: dpo", "stage: sft"), "ranking: pairs of answers in stage sft"),
        (KTO + "pref_ftx: 0.5", "pref_ftx: the cross entropy of the chosen answers in addition to the loss"),
        (KTO + "ref_model: a/c", "ref_model: another reference model"),
        (KTO + "kto_rejected_weight: 0", "kto_rejected_weight must be above 0"),
        (KTO.replace("thumbs", "pairs"), "names no kto_tag, without which LLaMA-Factory drops every row"),
        (KTO.replace("thumbs", "judged"), "ranking: pairs of answers in stage kto"),
        (TRL + "desirable_weight: 2\nloss_type: [kto, sft]", "loss_type: the loss kto, sft of judged answers"),
        (TRL + "desirable_weight: 2\nlabel_smoothing: 0.1", "'label_smoothing' is no key of trl kto"),
        (TRL + "f_divergence_type: js_divergence", "f_divergence_type: another divergence"),
        (TRL + "sync_ref_model: true", "sync_ref_model: a reference model that follows the training"),
        (TRL + "packing: true", "'packing' is no key of trl dpo"),
        (TRL.replace("0.1", "0"), "beta must be above 0"),
    ],
)
def test_what_an_objective_of_a_spec_cannot_say_is_refused(text, feature, imported, write):
    with pytest.raises(UserError) as caught:
        imported(write(text + "\n"))
    assert any(feature in problem.what for problem in caught.value.problems), caught.value.problems


def test_answers_that_were_judged_alone_are_rows_with_a_label(imported, write, workspace):
    """Rows of both shapes as LLaMA-Factory joins them, with one line break, not two."""
    rows = {
        "thumbs": [{"instruction": "Name a river.", "input": "Now.", "said": "The Loire.", "good": False}],
        "talked": [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "label": True}],
    }
    for name, content in rows.items():
        (workspace / f"data/{name}.json").write_text(json.dumps(content), "utf-8")
    found = imported(write(KTO.replace("thumbs", "thumbs,talked")))
    spec = tomllib.loads(*found.files.values())
    assert {task["layout"]["kind"] for task in spec["tasks"].values()} == {"unpaired_preference"}
    tasks = found.specs[0].experiment.tasks
    read_rows = {}
    for name, task in tasks.items():
        source = task.source
        (row,) = (row for _, row in Selected(source).rows(source.read([workspace / f"data/{name}.json"])))
        read_rows[name] = task.layout.normalised(row, Location("x", 1))[1]
    assert [(row["prompt"], row["completion"], row["desirable"]) for row in read_rows.values()] == [
        ("Name a river.\nNow.", "The Loire.", False),
        ("Hi", "Hello.", True),
    ]
    (entry,) = [entry for entry in found.specs[0].entries if entry.key == "stage"]
    assert entry.differs and "one for the global batch" in entry.why


@pytest.mark.parametrize(("name", "tool"), [("pairs.yml", "axolotl"), ("factory-pairs.yaml", "llamafactory"), ("trl-pairs.yaml", "trl")])
def test_a_training_on_pairs_has_no_dropout_as_the_tools_switch_it_off(name, tool, imported, workspace):
    assert recognised(read(workspace / name, name)) == tool
    found = imported(name)
    assert found.specs[0].experiment.training.method.lora_dropout == 0
    (entry,) = [entry for entry in found.specs[0].entries if entry.key == "lora_dropout"]
    assert "switches dropout off" in entry.why


def test_keys_of_supervised_training_are_accounted_for_with_a_reason(imported, write):
    entries = {entry.key: entry for entry in imported(write(AXOLOTL + "rl: dpo\ntrain_on_inputs: true\n")).specs[0].entries}
    assert entries["train_on_inputs"].fate == "no meaning here" and "only the answers are learned" in entries["train_on_inputs"].why


PAIR = {"system": "Be brief.", "question": "Name a river.", "chosen": "The Loire.", "rejected": "A river is a flowing body of water."}


def talk(side: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": PAIR[side]}]


BARE = {"chosen_response": PAIR["chosen"], "rejected_response": PAIR["rejected"]}
JUDGED: dict[str, tuple[dict[str, Any], str]] = {
    "icr": ({**PAIR, "input": "Name a river.", "question": "not read"}, "rl: dpo"),
    "default": ({**BARE, "instruction": "Name a river."}, "rl: orpo"),
    "argilla_chat": ({side: talk(side) for side in ("chosen", "rejected")}, "rl: ipo"),
}
"""Rows of axolotl's types of pairs in ChatML, by the names of the types."""


def test_the_answers_of_pairs_are_learned_after_the_prompt_of_the_tools_format(here):
    files = []
    for name, (row, rl) in JUDGED.items():
        (here / f"data/{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
        config = f"base_model: models/tiny\n{rl}\ndatasets: [{{path: data/{name}.jsonl, type: chatml.{name}}}]\nsequence_len: 400\n"
        files.append(here / f"{name}.yml")
        files[-1].write_text(config + "micro_batch_size: 1\nlearning_rate: 1e-4\nbf16: false\n", "utf-8")
    answers = {side: PAIR[side] for side in ("chosen", "rejected")}
    asked = [{"instruction": "Name a river.", "input": more, **answers} for more in ("", "Now.")]
    (here / "data/judged.json").write_text(json.dumps(asked), "utf-8")
    columns = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
    info = {"judged": {"file_name": "judged.json", "ranking": True, "columns": columns}}
    (here / "data/dataset_info.json").write_text(json.dumps(info), "utf-8")
    files.append(here / "judged.yaml")
    files[-1].write_text(FACTORY.replace("a/b", "models/tiny") + "cutoff_len: 400\n", "utf-8")
    done = commands.engine(ROOT, "--workspace", str(here), "import", *map(str, files), "--explain", "--json", "-n", "2")
    assert done.returncode == 0, done.stderr
    *found, factory = json.loads(done.stdout)["comparisons"]
    rows = [(row, "system" in JUDGED[name][0], "") for name, one in zip(JUDGED, found, strict=True) for row in one["rows"]]
    rows += [(factory["rows"][0], False, ""), (factory["rows"][1], False, "\nNow.")]
    for row, has_system, more in rows:
        sides = row["ours"]
        said = ["".join(token["text"] for token in side if token["supervised"]) for side in sides]
        assert [answer.partition("<|im_end|>")[0] for answer in said] == [*answers.values()]
        system = "<|im_start|>system\nBe brief.<|im_end|>\n" if has_system else ""
        prompt = "".join(token["text"] for token in sides[0]).partition(PAIR["chosen"])[0]
        assert prompt.endswith(f"{system}<|im_start|>user\nName a river.{more}<|im_end|>\n<|im_start|>assistant\n")
    assert all("trainings on pairs" in one["without_rules"] for one in (*found, factory))


@pytest.mark.parametrize(
    ("text", "key"),
    [(AXOLOTL + "rl: dpo\ndpo_label_smoothing: 0.1", "dpo_label_smoothing"), (TRL + "label_smoothing: 0.2", "label_smoothing")],
)
def test_label_smoothing_that_the_tool_does_not_apply_is_told(text, key, imported, write):
    (entry,) = [entry for entry in imported(write(text + "\n")).specs[0].entries if entry.key == key]
    assert "of the loss robust" in entry.why and not entry.ours


@pytest.mark.parametrize("tool", ["axolotl", "llamafactory", "trl"])
@pytest.mark.parametrize("loss", ["sigmoid", "robust"])
def test_a_configuration_says_if_its_tool_smooths_no_labels(tool, loss, imported, workspace):
    ((path, text),) = imported("pairs.yml").files.items()
    changed, number = re.subn(r'^(kind = "dpo")', rf'\1\nloss = "{loss}"\nlabel_smoothing = 0.1', text, flags=re.MULTILINE)
    assert number == 1
    (workspace / "specs").mkdir(exist_ok=True)
    (workspace / path).write_text(changed.replace('"main"', f'"{"1" * 40}"'), "utf-8")
    written = export(load_spec(workspace / path, workspace), tool)
    unsaid = "its loss sigmoid does not smooth labels" in written
    assert unsaid == (loss == "sigmoid" and tool != "llamafactory")
    assert "label_smoothing: 0.1" in written


def test_a_spec_of_pairs_passes_the_check(imported, workspace):
    for name in ("pairs.yml", "factory-pairs.yaml", "trl-pairs.yaml"):
        ((path, text),) = imported(name).files.items()
        (workspace / "specs").mkdir(exist_ok=True)
        (workspace / path).write_text(text.replace('"main"', f'"{"1" * 40}"'), "utf-8")
        assert load_spec(workspace / path, workspace).experiment.training.objective.on_pairs
