"""`[model] merged`: a new adapter on the model into which another experiment's adapter is merged."""

import pytest

from engine.compile.compiler import compile_each
from engine.spec.load import load_specs
from tests.support.toys import toy

PREFERRED = {"pairs": 'source = { kind = "jsonl", path = "pairs.jsonl" }\nlayout = "preference"'}
START = toy(name="start")
LORA = '{ kind = "lora", r = 4 }'
SFT = toy(name="sft", base='experiment = "start"', method=LORA)
MERGED = 'experiment = "sft"\nmerged = true'


@pytest.fixture
def compiled(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"word": "a"}\n')
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')

    def compiled(**specs):
        for name, text in specs.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return compile_each(load_specs([tmp_path / f"{name}.toml" for name in specs], tmp_path), root=tmp_path)

    return compiled


def dpo(name="dpo", base=MERGED, method='{ kind = "lora", r = 8 }', more='compare = ["base"]'):
    objective = f'objective = {{ kind = "dpo" }}\n[evaluation]\ntasks = ["pairs"]\n{more}\n'
    return toy(PREFERRED, name=name, base=base, method=method, more=objective)


def test_a_new_adapter_stands_on_the_merged_model_and_its_reference_is_that_model(compiled):
    """Another rank than that of the merged adapter, which could not be trained further with it."""
    found = compiled(start=START, sft=SFT, dpo=dpo(more=""))
    assert found.problems == []
    graph = found.graph()
    merge, train = graph["merge-sft"], graph["train-dpo"]
    assert {role: item.producer for role, item in merge.inputs.items() if role in ("model", "adapter/sft")} == {
        "model": "train-start",
        "adapter/sft": "train-sft",
    }
    assert train.inputs["model"].producer == "merge-sft" and "adapter" not in train.inputs
    (reference,) = [step for step in graph if step.kind_name == "reference"]
    assert reference.name == "reference-sft-merged-pairs" and reference.inputs["model"].producer == "merge-sft"
    assert "adapter" not in reference.inputs
    assert graph["predict-dpo"].inputs["model"].producer == "merge-sft"


def test_the_same_adapter_is_trained_further_beside_a_new_one(compiled):
    """Their references are of different models, and so are the answers of the bases that they are compared with."""
    further = dpo("further", base='experiment = "sft"', method=LORA, more='compare = ["base"]')
    found = compiled(start=START, sft=SFT, dpo=dpo(), further=further)
    assert found.problems == []
    graph = found.graph()
    assert {step.name for step in graph if step.kind_name == "reference"} == {"reference-sft-merged-pairs", "reference-sft-pairs"}
    assert graph["train-further"].inputs["adapter"].producer == "train-sft" and "adapter" not in graph["train-dpo"].inputs
    assert graph["predict-sft-merged-pairs"].inputs["model"].producer == "merge-sft"


def test_the_step_is_that_of_its_own_merge_section(compiled):
    own = SFT + "[merge]\ncheck_rows = 2\n"
    found = compiled(start=START, sft=own, dpo=dpo(more=""))
    assert found.problems == []
    assert [step.parameters.check_rows for step in found.graph() if step.kind_name == "merge"] == [2]


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ('"full"', "experiment 'sft' is trained with method full and has no adapter to merge"),
        ('{ kind = "prompt_tuning", num_virtual_tokens = 3 }', "the adapter of 'sft' consists of virtual tokens (prompt_tuning)"),
    ],
)
def test_what_cannot_be_merged_is_located(compiled, method, what):
    (problem,) = compiled(start=START, sft=toy(name="sft", base='experiment = "start"', method=method), dpo=dpo(more="")).problems
    assert problem.what.startswith(what) and "remove merged" in problem.hint
    assert problem.where.file == "dpo.toml" and problem.where.line > 1
