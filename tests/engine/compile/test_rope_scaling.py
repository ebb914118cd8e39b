"""`[model] rope_scaling`: one step writes the model with it, all others read that, and a longer context is then allowed."""

import pytest

from engine.compile.compiler import compile_each
from engine.core.errors import UserError
from engine.spec.load import load_specs
from tests.stages.generate.tiny_models import llama, t5
from tests.support.toys import GOLD, toy

TASKS = {"a": f"{GOLD}\nmax_new_tokens = 4"}
YARN = 'rope_scaling = { kind = "yarn", factor = 4.0 }'


@pytest.fixture
def compiled(tmp_path):
    llama(tmp_path / "base", positions=64)
    (tmp_path / "a.jsonl").write_text('{"word": "x"}\n')

    def compiled(**specs):
        for name, text in specs.items():
            (tmp_path / f"{name}.toml").write_text(text)
        return compile_each(load_specs([tmp_path / f"{name}.toml" for name in specs], tmp_path), root=tmp_path)

    return compiled


def spec(more="", tokenization="", name="toy", evaluation=""):
    base = f'path = "base"\n{more}'
    return toy(TASKS, name=name, base=base, method='"lora"', tokenization=tokenization, more=f"[evaluation]\n{evaluation}\n[merge]")


def test_training_prediction_and_merge_read_the_scaled_model_and_tokens_stay_shared(compiled):
    found = compiled(toy=spec(YARN, evaluation='compare = ["base"]'), plain=spec(name="plain"))
    assert found.problems == []
    graph = found.graph()
    for step in ("train-toy", "predict-toy", "merge-toy", "predict-base-yarn-a"):
        assert graph[step].inputs["model"].path == "artifacts/rescale-base-yarn", step
    assert graph["rescale-base-yarn"].inputs["model"].path == "base"
    assert graph["train-plain"].inputs["model"].path == "base"
    tokens = {item.path for name in ("toy", "plain") for role, item in graph[f"train-{name}"].inputs.items() if role == "tokens/a"}
    assert tokens == {"artifacts/tokenize-a-base/train.safetensors"}


def test_a_longer_context_is_allowed_up_to_the_factor(compiled):
    assert [one.what for one in compiled(toy=spec(tokenization="max_length = 256")).problems] == [
        "tokenization.max_length is 256, but model base has 64 positions"
    ]
    assert compiled(toy=spec(YARN, "max_length = 256")).problems == []
    (problem,) = compiled(toy=spec(YARN, "max_length = 257")).problems
    assert problem.what == "tokenization.max_length is 257, but model base has 256 positions"
    assert problem.hint == "set it to at most 256, or raise model.rope_scaling.factor (toy.toml:6:42)"


def test_the_trained_model_of_another_experiment_is_scaled(compiled):
    first = toy(TASKS, name="first", base='path = "base"', method='"full"')
    found = compiled(
        first=first, toy=toy(TASKS, base=f'experiment = "first"\n{YARN}', method='"lora"', more='[evaluation]\ncompare = ["base"]')
    )
    assert found.problems == []
    graph = found.graph()
    assert graph["rescale-first-yarn"].inputs["model"].path == "artifacts/train-first"
    # It starts from the scaled model, which answers otherwise than the one that the other experiment evaluates.
    assert graph["evaluate-toy"].inputs["compare/base/a"].path == "artifacts/predict-first-yarn-a/predictions-a.jsonl"


def test_a_model_without_rotary_positions(compiled, tmp_path):
    t5(tmp_path / "five")
    text = toy(TASKS, base=f'path = "five"\n{YARN}', method='"lora"')
    (problem,) = compiled(toy=text).problems
    assert problem.what == "rope_scaling does not fit model five: t5 has no rotary positions"
    assert (problem.where.line, problem.where.source[problem.where.column - 1 :][: problem.where.length]) == (6, YARN.partition("= ")[2])


@pytest.mark.parametrize(
    ("scaling", "what"),
    [
        ('{ kind = "yarn", factor = 0.5 }', "model.rope_scaling.factor must be at least 1, not 0.5"),
        ('{ kind = "linear" }', "missing key 'factor' in model.rope_scaling of kind 'linear'"),
        ('{ kind = "linear", factor = 2, beta_fast = 3 }', "unknown key 'beta_fast' in model.rope_scaling of kind 'linear'"),
        ('{ kind = "yarn", factor = 2, beta_fast = 0.5 }', "beta_fast must be at least beta_slow (1.0), got 0.5"),
        ('{ kind = "llama3", factor = 2, high_freq_factor = 1 }', "high_freq_factor must be greater than low_freq_factor (1.0), got 1.0"),
        ('{ kind = "ntk", factor = 2 }', "unknown kind 'ntk' of model.rope_scaling"),
        ('{ rope_type = "yarn", factor = 2 }', "missing key 'kind' in model.rope_scaling"),
    ],
)
def test_values_that_transformers_would_only_warn_about_are_refused(compiled, scaling, what):
    with pytest.raises(UserError) as caught:
        compiled(toy=spec(f"rope_scaling = {scaling}"))
    assert [problem.what for problem in caught.value.problems] == [what] and caught.value.problems[0].where.line == 6
