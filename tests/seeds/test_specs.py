"""The specs of the published experiments: they check and compile, and a twin goes the same road as what it stands in for."""

import pytest

from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.estimate.methods import trainable_parameters
from engine.estimate.models import model_of
from engine.plan.project import Project
from engine.spec.models import HubModel, TrainedModel
from stages.train.methods import Lora
from stages.train.zero import as_zero
from tests.seeds.workspaces import NAMES, SEEDS, UNKNOWN, copied


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Published and twin of every experiment."""
    roots = {name: copied(name, tmp_path_factory.mktemp("seeds")) for name in NAMES}
    return {name: (Project(Workspace.at(root / "published")), Project(Workspace.at(root))) for name, root in roots.items()}


def experiments(project):
    return {spec.name: spec.experiment for spec in project.specs}


def test_there_are_four():
    assert NAMES == ["bloom-560m-chat", "falcon-180b-dolly", "falcon-7b-summaries", "flan-t5-methods"]


@pytest.mark.parametrize("name", NAMES)
def test_published_and_twin_compile_into_whole_graphs(projects, name):
    for project in projects[name]:
        kinds = {step.kind.name for step in project.graph}
        assert {"generate", "split", "tokenize", "mix", "train", "predict", "evaluate"} <= kinds
        assert "fetch" in kinds if project is projects[name][0] else "initialize" in kinds
        assert set(project.compiled) == {"dvc.yaml", "params.yaml"}


def test_every_other_commit_is_known():
    """Those that are branches are refused, so that compiling has shown the others to be commits."""
    unknown = [path for path in SEEDS.rglob("*.toml") if UNKNOWN in path.read_text("utf-8")]
    assert [path.relative_to(SEEDS).as_posix() for path in unknown] == ["falcon-180b-dolly/published/specs/adapter.toml"]


def road(experiment, project):
    """What decides which code an experiment runs through, models, data and sizes aside."""
    training, tokenization, resources = experiment.training, experiment.tokenization, experiment.resources
    return {
        "tasks": sorted(experiment.tasks),
        "mixture": (experiment.mixture.tasks, experiment.mixture.sampler.kind),
        "prompts": {name: (task.prompts, task.answer_prefix, task.layout) for name, task in experiment.tasks.items()},
        "tokens": (tokenization.mask, tokenization.format, tokenization.over_length, tokenization.encoder_decoder, tokenization.boundary),
        "training": (training.method.kind, training.optimizer, training.schedule, training.batching.kind, training.max_grad_norm),
        "asked": (experiment.evaluation.tasks, experiment.evaluation.metrics, len(experiment.evaluation.compare)),
        "merge": experiment.merge,
        "sharing": (as_zero(resources.zero), resources.attention),
    }


def twin_of(spec):
    """The name of a spec's twin; a point of a sweep is named behind its spec."""
    return f"{spec.stem}-tiny{spec.name.removeprefix(spec.stem)}"


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_replaces_model_data_and_sizes_only(projects, name):
    published, twins = projects[name][0].specs, experiments(projects[name][1])
    assert {twin_of(spec) for spec in published} == {each for each in twins if not each.startswith("base")}
    for spec in published:
        experiment, twin = spec.experiment, twins[twin_of(spec)]
        assert isinstance(experiment.model, HubModel) and isinstance(twin.model, TrainedModel)
        assert road(twin, projects[name][1]) == road(experiment, projects[name][0]), spec.name


def test_a_model_whose_commit_is_not_known_says_so_at_its_line():
    with pytest.raises(UserError) as caught:
        _ = Project(Workspace.at(SEEDS / "falcon-180b-dolly/published")).specs
    (problem,) = caught.value.problems
    assert problem.where.file == "specs/adapter.toml" and "40 hex digits" in problem.what and "engine pin" in problem.hint


def test_the_published_count_of_low_rank_parameters():
    """A layer of 512 x 64 has 32,768 weights; at r = 8 its update has 4,608: 86 % less."""
    config = {"model_type": "llama", "hidden_size": 512, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 8}
    model = model_of({**config, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 8})
    layer = next(layer for layer, _ in model.inside if layer.name == "self_attn.k_proj")
    assert layer.weights == 512 * 64 == 32_768
    assert trainable_parameters(model, Lora(r=8, target_modules=("k_proj",))) == 8 * 64 + 512 * 8 == 4_608
