"""`[pairs.<name>]`: who answers which rows, what is shared, and what cannot be paired, located before anything runs."""

import pytest

from engine.compile.compiler import compile_each
from engine.identity.text import recipe_of
from engine.spec.load import load_specs
from tests.support.toys import GOLD, toy

SAMPLED = """
[pairs.own]
task = "a"
experiments = ["sft"]
samples = 2
scores = [{ metric = "exact_match" }, { metric = "rouge", weight = 0.5 }]
"""
MADE = {"a": GOLD, "made": 'source = { kind = "pairs", pairs = "own" }\nlayout = "preference"'}
JUDGE = '[evaluation.judge]\nteacher = { model = "m", base_url = "http://localhost:1" }\nscores = ["right", "brief"]\n'
SFT = toy({"a": GOLD}, name="sft")


@pytest.fixture
def compiled(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"word": "a"}\n')

    def compiled(**specs):
        for name, text in specs.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return compile_each(load_specs([tmp_path / f"{name}.toml" for name in specs], tmp_path), root=tmp_path)

    return compiled


def spec(pairs=SAMPLED, more="", name="toy", tasks=MADE, evaluated='tasks = ["a"]', base='experiment = "sft"'):
    objective = 'objective = { kind = "dpo" }\n'
    text = toy(tasks, name=name, base=base, method='"lora"', more=f"{objective}[evaluation]\n{evaluated}\n{more}{pairs}")
    return text.replace('tasks = ["a", "made"]', 'tasks = ["made"]', 1)


def test_every_sample_is_a_step_over_train_and_validation_rows_that_all_pairs_share(compiled):
    shorter = SAMPLED.replace("[pairs.own]", "[pairs.short]").replace('{ metric = "exact_match" }', '{ metric = "length", weight = -1.0 }')
    more = SAMPLED.replace("[pairs.own]", "[pairs.more]").replace("samples = 2", "samples = 3")
    others = {name: f'source = {{ kind = "pairs", pairs = "{name}" }}\nlayout = "preference"' for name in ("short", "more")}
    tasks = MADE | others
    found = compiled(sft=SFT, toy=spec(SAMPLED + shorter + more, tasks=tasks).replace('["a", "made", ', '["made", '))
    assert found.problems == []
    graph = found.graph()
    answers = {step.name for step in graph if step.kind_name == "predict" and step.name.startswith("predict-sft-a")}
    assert answers == {f"predict-sft-a-t1_0-seed{seed}" for seed in range(3)}
    one = graph["predict-sft-a-t1_0-seed1"]
    assert {role: item.path for role, item in one.inputs.items()} == {
        "model": "artifacts/train-sft",
        "train/a": "artifacts/split-a/train.jsonl",
        "validation/a": "artifacts/split-a/validation.jsonl",
    }
    assert one.parameters.decoding.seed == 1
    pair = graph["pair-own"]
    assert {item.producer for role, item in pair.inputs.items() if role.startswith("answers/")} == answers - {"predict-sft-a-t1_0-seed2"}
    assert [(term["value"], term["weight"]) for term in recipe_of(pair.parameters)["scores"]] == [("exact_match", 1.0), ("rougeL", 0.5)]
    assert graph["generate-made"].inputs["source"].path == "artifacts/pair-own/pairs.jsonl"
    assert graph["generate-made"].parameters.split_column == "split" and graph["split-made"].parameters.fixed
    assert (graph["split-made"].parameters.validation, graph["split-made"].parameters.test) == (0, 0)


def test_what_was_answered_is_evaluated_and_counts_as_trained_on(compiled):
    found = compiled(sft=SFT, toy=spec(evaluated=""))
    assert found.problems == []
    parameters = found.graph()["evaluate-toy"].parameters
    assert (parameters.tasks, parameters.trained_on) == (("a",), ("made", "a"))


def test_answers_of_several_experiments_and_of_points_of_a_sweep(compiled):
    both = SAMPLED.replace('["sft"]', '["sft", "other"]').replace("samples = 2", 'decoding = "greedy"')
    sweep = "[sweep.grid]\ntraining.objective.beta = [0.1, 0.5]\n"
    found = compiled(sft=SFT, other=toy({"a": GOLD}, name="other"), toy=spec(both + sweep))
    assert found.problems == []
    graph = found.graph()
    assert [step.name for step in graph if step.name.endswith("-greedy")] == ["predict-sft-a-greedy", "predict-other-a-greedy"]
    assert [step.name for step in graph if step.kind_name in ("pair", "reference")] == ["pair-own", "reference-sft-made"]


def test_the_judge_of_the_evaluation_scores_every_answer_once(compiled):
    judged = SAMPLED.replace('{ metric = "exact_match" }', '{ metric = "judge", value = "brief" }')
    found = compiled(sft=SFT, toy=spec(judged, JUDGE))
    assert found.problems == []
    graph = found.graph()
    judge = graph["judge-sft-t1_0-seed0-a"]
    assert [judge.inputs[f"source/{n}"].path.rpartition("/")[2] for n in range(3)] == [
        "predictions-a.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert graph["pair-own"].inputs["judge/answers/0/sft/0"].producer == judge.name
    assert graph["pair-own"].parameters.scores[0].value == "judge_brief"


def test_the_best_answers_are_rows_of_a_supervised_task(compiled):
    best = MADE | {"made": 'source = { kind = "best_of", pairs = "own", min_score = 1.0 }\nlayout = "prompt_completion"'}
    found = compiled(sft=SFT, toy=spec(tasks=best).replace('objective = { kind = "dpo" }\n', ""))
    assert found.problems == [] and found.graph()["generate-made"].inputs["source"].path == "artifacts/pair-own/answers.jsonl"


def test_one_answer_is_enough_to_choose_rows_by_its_score_but_not_for_a_pair(compiled):
    one = SAMPLED.replace("samples = 2", "samples = 1")
    best = MADE | {"made": 'source = { kind = "best_of", pairs = "own", min_score = 1.0 }\nlayout = "prompt_completion"'}
    found = compiled(sft=SFT, toy=spec(one, tasks=best).replace('objective = { kind = "dpo" }\n', ""))
    assert found.problems == []
    assert [role for role in found.graph()["pair-own"].inputs if role.startswith("answers/")] == ["answers/0/sft/0"]
    (problem,) = compiled(sft=SFT, toy=spec(one)).problems
    assert problem.what.startswith("a pair needs two answers to a prompt") and "source best_of" in problem.hint
    assert problem.where.file == "toy.toml" and problem.where.line > 1


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (
            spec(evaluated='tasks = ["made"]'),
            "task 'made' has no test rows: it is made of answers to train and validation rows",
            'the task that was answered: evaluation.tasks = ["a"]',
        ),
        (spec(SAMPLED.replace('"a"', '"b"')), "this spec has no task 'b'", "a"),
        (spec(SAMPLED.replace("pairs.own", "pairs.owl")), "this spec has no [pairs.own]", "owl"),
        (spec(SAMPLED.replace('"sft"', '"sfd"')), "no experiment 'sfd' in this workspace", "sft"),
        (spec(SAMPLED.replace('"sft"', '"toy"')), "pairs are made of answers of a model that learns from them: toy -> toy", "starts from"),
        (spec(SAMPLED.replace("exact_match", "judge")), "the answers are scored by a judge, and this spec has none", "[evaluation.judge]"),
        (
            spec(SAMPLED.replace('"exact_match"', '"judge", value = "long"'), JUDGE),
            "the judge has no score 'long'",
            "right",
        ),
    ],
)
def test_what_cannot_be_paired_is_located_in_the_spec(compiled, text, what, hint):
    (problem,) = compiled(sft=SFT, toy=text).problems
    assert problem.what == what and hint in problem.hint
    assert problem.where.file == "toy.toml" and problem.where.line > 1


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("samples = 2", 'samples = 2\ndecoding = "greedy"', "all samples of greedy decoding are equal"),
        ('["sft"]', '["sft", "sft"]', "an experiment is listed twice"),
        ('"exact_match"', '"perplexity"', "perplexity measures the reference, not the answer"),
        ("weight = 0.5", "weight = 0.0", "a term with the weight 0 has no effect"),
        (
            'layout = "preference"',
            'layout = "preference"\nsplit = { test = 0.5 }',
            "source pairs keeps every row in the split of its prompt: remove split.test",
        ),
    ],
)
def test_sections_that_contradict_themselves_are_refused(compiled, old, new, what):
    with pytest.raises(Exception, match=what):
        compiled(sft=SFT, toy=spec().replace(old, new))
