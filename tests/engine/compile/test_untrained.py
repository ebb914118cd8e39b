"""A spec without a training evaluates its model as it is: the same tasks, metrics and comparisons, and no step that trains."""

import pytest

from engine.compile.compiler import compile_each
from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project
from engine.spec.load import load_specs
from tests.engine.compile.test_evaluation import MODEL_AND_TASKS

TRAINED = '[training]\nmethod = "lora"\n[mixture]\ntasks = ["a"]\n'


def spec(name, more=""):
    return f'extends = ["parts/common.toml"]\n\n[experiment]\nname = "{name}"\n\n{more}\n'


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "specs/parts").mkdir(parents=True)
    (tmp_path / "specs/parts/common.toml").write_text(MODEL_AND_TASKS)

    def make(**specs):
        for name, more in specs.items():
            (tmp_path / f"specs/{name}.toml").write_text(spec(name, more))
        return tmp_path

    return make


@pytest.fixture
def graph(workspace):
    return lambda **specs: Project(Workspace.at(workspace(**specs))).graph


@pytest.fixture
def refused(workspace):
    def refused(**specs):
        root = workspace(**specs)
        try:
            found = compile_each(load_specs(sorted((root / "specs").glob("*.toml")), root), root=root).problems
        except UserError as error:
            found = error.problems
        return [(str(problem.where), problem.what, problem.hint) for problem in found]

    return refused


def test_all_its_tasks_are_evaluated_and_nothing_is_tokenized_or_trained(graph):
    found = graph(bare="")
    assert {step.kind_name for step in found} == {"generate", "split", "predict", "evaluate", "score"}
    assert found["predict-bare"].inputs["model"].path == "model" and "adapter" not in found["predict-bare"].inputs
    assert found["evaluate-bare"].parameters.tasks == ("a", "b") and found["evaluate-bare"].parameters.trained_on == ()


def test_a_held_out_task_is_not_asked(graph):
    found = graph(bare='[evaluation]\nheld_out = ["b"]')
    assert found["evaluate-bare"].parameters.tasks == ("a",) and found["predict-bare"].parameters.held_out == ("b",)


def test_the_model_of_another_experiment_is_evaluated_with_its_adapter_and_compared_with_the_model_below(graph):
    found = graph(trained=TRAINED, again='[model]\nexperiment = "trained"\n[evaluation]\ntasks = ["a"]\ncompare = ["base", "trained"]')
    assert found["predict-again"].inputs["adapter"].path == "artifacts/train-trained"
    reads = found["evaluate-again"].inputs
    assert reads["compare/base/a"].path == "artifacts/predict-tiny-a/predictions-a.jsonl"
    assert "adapter" not in found["predict-tiny-a"].inputs
    assert reads["compare/trained/a"].path == "artifacts/predict-trained/predictions-a.jsonl"


def test_a_trained_model_is_compared_with_one_that_is_not(graph):
    found = graph(bare="", trained=f'{TRAINED}[evaluation]\ncompare = ["bare"]')
    assert found["evaluate-trained"].inputs["compare/bare/a"].path == "artifacts/predict-bare/predictions-a.jsonl"


def test_training_starts_from_the_model_of_an_experiment_that_trains_nothing(graph):
    found = graph(bare="", trained=f'[model]\nexperiment = "bare"\n{TRAINED}')
    assert found["train-trained"].inputs["model"].path == "model"


def test_an_adapter_that_is_evaluated_only_is_merged(graph):
    found = graph(trained=TRAINED, again='[model]\nexperiment = "trained"\n[merge]')
    assert found["merge-again"].inputs["adapter/again"].path == "artifacts/train-trained"
    assert {role for role in found["merge-again"].inputs if role.startswith("rows/")} == {"rows/a", "rows/b"}


@pytest.mark.parametrize(
    ("more", "where", "what"),
    [
        ('[mixture]\ntasks = ["a"]', "specs/bare.toml", "missing section [training]"),
        ('[training]\nmethod = "lora"', "specs/bare.toml", "missing section [mixture]"),
        ("[merge]", "specs/bare.toml:6:2", "'bare' trains nothing, and its model has no adapter to merge"),
        (
            '[evaluation]\ncompare = ["base"]',
            "specs/bare.toml:7:12",
            "'bare' trains nothing and has no adapter, so 'base' is the model itself",
        ),
        (
            '[evaluation]\nheld_out = ["a", "b"]',
            "specs/bare.toml:7:12",
            "every task is held out, so the model generates no predictions to evaluate: leave one of them out here",
        ),
        (
            '[tokenization]\nspecial_tokens = ["<x>"]',
            "specs/bare.toml:7:18",
            "special_tokens are added in a training, and this spec has none",
        ),
    ],
)
def test_what_needs_a_training_or_an_adapter_is_refused_where_it_stands(refused, more, where, what):
    ((place, said, _),) = refused(bare=more)
    assert (place, said) == (where, what)
