"""`[training] objective` on pairs: tokens of both answers, and one reference for every training that starts from the same model."""

import pytest

from engine.compile.compiler import compile_each
from engine.spec.load import load_specs
from tests.support.toys import toy

PAIRS = {"a": 'source = { kind = "jsonl", path = "a.jsonl" }\nlayout = "preference"'}
DPO = 'objective = { kind = "dpo", beta = 0.2 }\n'


@pytest.fixture
def compiled(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "Q", "chosen": "A", "rejected": "B"}\n')

    def compiled(**specs):
        for name, text in specs.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return compile_each(load_specs([tmp_path / f"{name}.toml" for name in specs], tmp_path), root=tmp_path)

    return compiled


def spec(more, name="toy", base='experiment = "sft"', method='"lora"', tokenization=""):
    return toy(PAIRS, name=name, base=base, method=method, tokenization=tokenization, more=more)


SFT = toy(PAIRS, name="sft", method='"full"')


def test_supervised_training_on_pairs_learns_the_chosen_answers_and_needs_no_reference(compiled):
    graph = compiled(sft=SFT, toy=spec(DPO)).graph()
    assert graph["train-sft"].inputs["tokens/a"].path == "artifacts/tokenize-a-tiny/train.safetensors"
    assert not [role for role in graph["train-sft"].inputs if role.startswith("reference")]
    assert graph["train-toy"].inputs["tokens/a"].path == "artifacts/tokenize-a-pairs-tiny/train.safetensors"


def test_the_reference_reads_the_very_model_that_the_training_starts_from(compiled):
    graph = compiled(sft=toy(PAIRS, name="sft", method='"lora"'), toy=spec(DPO)).graph()
    reference, training = graph["reference-sft-a"], graph["train-toy"]
    assert training.inputs["reference/a"].path == reference.artifact
    assert {role: reference.inputs[role] for role in ("model", "adapter")} == {role: training.inputs[role] for role in ("model", "adapter")}
    assert reference.inputs["adapter"].path == "artifacts/train-sft"


def test_a_sweep_over_beta_and_learning_rates_has_one_reference(compiled):
    sweep = "[sweep.grid]\n" + "training.objective.beta = [0.1, 0.5]\ntraining.learning_rate = [1e-4, 1e-3]\n"
    found = compiled(sft=SFT, toy=spec(DPO + sweep))
    assert found.problems == []
    kinds = [step.kind_name for step in found.steps]
    assert kinds.count("reference") == 1 and kinds.count("train") == 1 + 4


def test_other_precisions_and_quantisations_of_the_base_are_other_references(compiled):
    half = DPO + 'precision = "bfloat16"\n'
    found = compiled(sft=SFT, one=spec(DPO, "one"), two=spec(half, "two"), three=spec(DPO, "three", method='"qlora"'))
    assert found.problems == []
    names = {step.name for step in found.steps if step.kind_name == "reference"}
    assert names == {"reference-sft-a", "reference-sft-a-bfloat16", "reference-sft-a-4bit"}
    assert found.graph()["reference-sft-a-bfloat16"].parameters.dtype == "bfloat16"


@pytest.mark.parametrize("objective", ["orpo", "simpo"])
def test_objectives_without_a_reference_have_no_such_step(compiled, objective):
    found = compiled(sft=SFT, toy=spec(f'objective = "{objective}"\n'))
    assert found.problems == [] and not [step for step in found.steps if step.kind_name == "reference"]
    assert found.graph()["tokenize-a-pairs-tiny"].parameters.pairs


@pytest.mark.parametrize(
    ("tokenization", "what", "hint"),
    [
        ('mask = "full"', "only the last answer may be supervised", 'set mask = "completion"'),
        ('mask = "completion"\nover_length = "split"', "would cut the two answers of a pair differently", "drop"),
        ('boundary = "shift"', "may encode the prompt differently", 'set boundary = "apart"'),
    ],
)
def test_tokens_that_would_differ_between_the_answers_are_located_in_the_spec(compiled, tokenization, what, hint):
    (problem,) = compiled(sft=SFT, toy=spec(DPO, tokenization=tokenization)).problems
    assert what in problem.what and hint in problem.hint
    assert (problem.where.file, problem.where.line) == ("toy.toml", 12 + tokenization.count("\n"))


def test_encoder_decoders_are_refused(compiled):
    base = 'name = "t"\narchitecture = { kind = "t5", hidden_size = 16, layers = 1, heads = 2 }'
    (problem,) = compiled(toy=spec(DPO, base=base, method='"full"')).problems
    assert problem.what == "pairs of answers are supported for causal models only"


KTO = 'objective = "kto"\n'


def test_kto_shares_the_tokens_and_the_reference_of_dpo_and_adds_mismatched_answers(compiled):
    found = compiled(sft=SFT, one=spec(DPO, "one"), two=spec(KTO, "two"), three=spec('objective = { kind = "kto", beta = 0.3 }\n', "three"))
    assert found.problems == []
    assert {step.name for step in found.steps if step.kind_name == "reference"} == {"reference-sft-a", "reference-sft-a-mismatched"}
    graph = found.graph()
    for role in ("tokens/a", "reference/a"):
        assert graph["train-two"].inputs[role] == graph["train-one"].inputs[role]
    mismatched = graph["reference-sft-a-mismatched"]
    assert mismatched.parameters.mismatched and graph["train-two"].inputs["mismatched/a"].path == mismatched.artifact
    unshifted = compiled(sft=SFT, toy=spec('objective = { kind = "kto", loss = "apo_zero_unpaired" }\n')).graph()
    assert [role for role in unshifted["train-toy"].inputs if role.startswith(("reference", "mismatched"))] == ["reference/a"]


ALONE = {"b": 'source = { kind = "jsonl", path = "a.jsonl" }\nlayout = "unpaired_preference"'}


def test_answers_that_were_judged_alone_are_for_kto_and_for_supervised_training(compiled):
    graph = compiled(sft=toy(ALONE, name="sft", method='"full"'), toy=toy(ALONE, base='experiment = "sft"', more=KTO)).graph()
    assert graph["tokenize-b-judged-tiny"].parameters.judged and not graph["tokenize-b-tiny"].parameters.judged
    assert graph["train-toy"].inputs["tokens/b"].path == "artifacts/tokenize-b-judged-tiny/train.safetensors"
    (problem,) = compiled(toy=toy(ALONE, more=DPO)).problems
    assert "the answers of task 'b' were judged alone" in problem.what and "dpo compares the answers of pairs" in problem.what
    assert problem.where.file == "toy.toml" and problem.where.line
    (problem,) = compiled(toy=toy({**PAIRS, **ALONE}, more=KTO)).problems
    assert problem.what == "the mixture has pairs of answers (task 'a') and answers that were judged alone (task 'b')"
    (problem,) = compiled(toy=toy(ALONE, more=KTO, tokenization='over_length = "split"')).problems
    assert "would cut an answer that was judged as a whole" in problem.what
