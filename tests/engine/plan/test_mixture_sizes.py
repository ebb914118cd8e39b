"""Mixtures and batching from the spec to the plan: which step a setting belongs to, what the plan expects, and what is refused."""

from pathlib import Path

import pytest

from engine.compile.compiler import compile_graph
from engine.core.errors import UserError
from engine.core.graph import Graph
from engine.identity.environment import Environment
from engine.identity.text import Identities
from engine.plan.decide import Action, Decision, Plan
from engine.plan.mixture_sizes import expected_shares
from engine.plan.shares import realised_shares
from engine.plan.step_estimates import facts_of
from engine.plan.training_inputs import estimate_of
from engine.spec.load import load_specs
from stages.train.batching import Packed
from tests.support.memory_store import MemoryStore

ROOT = Path(__file__).parents[3]
SPEC = """
[experiment]
name = "one"

[model]
name         = "tiny"
architecture = {{ kind = "{architecture}", hidden_size = 32, layers = 1, heads = 2, max_length = 256 }}

[tasks.long]
source  = {{ kind = "synthetic", generator = "reports", rows = 8, seed = 3 }}
prompts = ["Name the topic.\\n{{{{ text }}}}\\n"]
teacher = {{ kind = "rules", rule = "topic" }}

[tasks.short]
source  = {{ kind = "synthetic", generator = "reports", rows = 8, seed = 4 }}
prompts = ["{{{{ text }}}}\\nTopic:"]
teacher = {{ kind = "rules", rule = "topic" }}

[tokenization]
max_length = 128

[mixture]
tasks = ["long", "short"]
{mixture}

[training]
method       = "full"
global_batch = {{ rows = 16 }}
{training}
"""
TOKENS = {
    "metrics/tokenize-long-tiny.json": {"train": {"rows_out": 100, "tokens": 3_000, "supervised_tokens": 1_000, "longest": 90}},
    "metrics/tokenize-short-tiny.json": {"train": {"rows_out": 300, "tokens": 1_000, "supervised_tokens": 1_000, "longest": 20}},
}


@pytest.fixture
def compiled(tmp_path):
    def make(mixture="", training="", architecture="llama", text=SPEC) -> Graph:
        path = tmp_path / "one.toml"
        path.write_text(text.format(mixture=mixture, training=training, architecture=architecture))
        return compile_graph(load_specs([path], tmp_path))

    return make


def identity(graph, name):
    return Identities(ROOT, Environment(ROOT)).of(graph[name])


def test_another_way_of_padding_is_no_other_step_and_packing_is_another_mixture(compiled):
    plain = compiled()
    for batching in ('"none"', '"padded"', '"padding_free"'):
        graph = compiled(training=f"batching = {batching}")
        assert identity(graph, "train-one") == identity(plain, "train-one")
        assert identity(graph, "mix-one") == identity(plain, "mix-one")
    packed = compiled(training='batching = "packed"')
    assert identity(packed, "mix-one") != identity(plain, "mix-one")
    assert packed["mix-one"].parameters.bin_tokens == 128, "as long as the longest row may be"
    assert compiled(training='batching = { kind = "packed", length = 500 }')["mix-one"].parameters.bin_tokens == 500
    assert isinstance(packed["train-one"].parameters.batching, Packed)


def test_the_plan_expects_the_shares_that_the_sampler_gives(compiled):
    store = MemoryStore(files=TOKENS)
    graph = compiled()
    assert expected_shares(graph["mix-one"], graph, store) == (
        "400 rows per epoch",
        "% of rows/tokens/supervised: long 25/75/50, short 75/25/50",
    )
    graph = compiled('sampler = { kind = "weights", by = "tokens", weights = { long = 1.0, short = 1.0 } }')
    assert expected_shares(graph["mix-one"], graph, store)[1].startswith("% of rows/tokens/supervised: long 10/50/25")
    assert expected_shares(graph["mix-one"], graph, MemoryStore(files={})) == ()


def test_realised_shares_are_those_of_the_metrics():
    tasks = {"a": {"rows": 1, "tokens": 30, "supervised_tokens": 1}, "b": {"rows": 3, "tokens": 10, "supervised_tokens": 1}}
    assert realised_shares({"tasks": tasks}) == ("% of rows/tokens/supervised: a 25/75/50, b 75/25/50",)
    assert realised_shares({"tasks": {"a": tasks["a"]}}) == () == realised_shares({})


def test_steps_of_a_packed_training_are_counted_in_bins_and_its_memory_by_their_length(compiled):
    graph = compiled(training='batching = { kind = "packed", length = 512 }')
    store = MemoryStore(files=TOKENS | {"metrics/mix-one.json": {"rows": 400, "bins": 33}})
    plan = Plan(tuple(Decision(step.name, step.kind.name, Action.RUN if step.kind.name == "train" else Action.KEEP) for step in graph))
    assert facts_of(graph["train-one"], plan, graph, store).sizes[0] == "3 steps of 16 bins"
    estimate = estimate_of(graph["train-one"], graph, plan, store)
    assert estimate is not None and estimate.matter.length == 512


def test_steps_of_a_training_are_those_of_the_mixture_that_will_be_built_not_of_the_one_before(compiled):
    graph = compiled(training="epochs = 3")
    store = MemoryStore(files=TOKENS | {"metrics/mix-one.json": {"rows": 400}, "metrics/train-one.json": {"steps": 25}})
    for action, steps in ((Action.KEEP, "25 steps of 16 rows"), (Action.RUN, "75 steps of 16 rows")):
        actions = {"mix": action, "train": Action.RUN}
        plan = Plan(tuple(Decision(step.name, step.kind.name, actions.get(step.kind.name, Action.KEEP)) for step in graph))
        assert facts_of(graph["train-one"], plan, graph, store).sizes[0] == steps


@pytest.mark.parametrize(
    ("mixture", "training", "message"),
    [
        ('sampler = { kind = "proportional", caps = { lang = 5 } }', "", "the sampler names 'lang'"),
        ('sampler = { kind = "curriculum", stages = [{ tasks = ["other"] }] }', "", "the sampler names 'other'"),
        ("total_rows = 10", "epochs = 2", "mixture.total_rows sets the length"),
        ("total_rows = 10\ntotal_tokens = 10", "", "not both"),
        ('sampler = { kind = "temperature", temperature = 0.5 }', "", "must be at least 1"),
        ("", 'batching = "paked"', "packed"),
    ],
)
def test_bad_mixtures_are_refused_where_they_stand(compiled, mixture, training, message):
    with pytest.raises(UserError) as caught:
        compiled(mixture, training)
    assert message in str(caught.value) and "one.toml:" in str(caught.value)


@pytest.mark.parametrize("batching", ["packed", "padding_free"])
def test_rows_of_a_model_with_alibi_cannot_lie_one_behind_another(compiled, batching):
    with pytest.raises(UserError, match="bloom does not support batching") as caught:
        compiled(training=f'batching = "{batching}"', architecture="bloom")
    assert "padded" in str(caught.value)


def test_the_length_of_a_mixture_may_stand_in_tokens(compiled):
    graph = compiled("total_tokens = 5000")
    parameters = graph["mix-one"].parameters
    assert (parameters.epochs, parameters.rows, parameters.tokens) == (None, None, 5000)


def test_adding_a_task_to_a_mixture_tokenizes_only_that_one(compiled):
    both = compiled()
    spec_with_one = SPEC.replace('tasks = ["long", "short"]', 'tasks = ["long"]')
    alone = compiled(text=spec_with_one)
    assert "tokenize-short-tiny" in both and "tokenize-short-tiny" not in alone
    assert identity(both, "tokenize-long-tiny") == identity(alone, "tokenize-long-tiny")
    assert identity(both, "mix-one") != identity(alone, "mix-one")
