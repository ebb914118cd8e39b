"""What the plan says of a training's cost: from specs and records alone, marked where it is a bound, and refused where it cannot fit."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engine.cli.main import app
from engine.cli.render import _time
from engine.compile.compiler import compile_graph
from engine.core.graph import Graph
from engine.core.workspace import Workspace
from engine.dvc.run_records import RunRecord
from engine.estimate.training import Estimate, estimate, gigabytes, shortage
from engine.plan.decide import Action, Decision, Plan
from engine.plan.project import Project
from engine.plan.step_estimates import Facts, facts_of, shortages, unchecked
from engine.plan.training_inputs import estimate_of
from engine.spec.load import load_specs
from stages.train import Parameters
from stages.train.methods import Full
from tests.support.memory_store import MemoryStore, statement

BASE = """
[experiment]
name = "base"

[model]
name         = "tiny"
architecture = { kind = "falcon", hidden_size = 128, layers = 3, heads = 4, max_length = 256 }
tokenizer    = { vocab_size = 1000 }

[tasks.topic]
source  = { kind = "synthetic", generator = "reports", rows = 8, seed = 3 }
prompts = ["Name the topic.\\n{{ text }}\\n"]
teacher = { kind = "rules", rule = "topic" }

[tokenization]
max_length = 128

[mixture]
tasks = ["topic"]

[training]
method       = "full"
steps        = 750
global_batch = { rows = 16 }
"""
ADAPTER = BASE.replace('"base"', '"topic"').replace('method       = "full"', 'method = { kind = "lora", r = 16 }')
ADAPTER = ADAPTER.replace(ADAPTER[ADAPTER.index("[model]") : ADAPTER.index("[tasks")], '[model]\nexperiment = "base"\n\n')

KNOWN = {
    "metrics/initialize-tiny.json": {"parameters": 681216, "vocab_size": 700},
    "metrics/tokenize-topic-tiny.json": {"train": {"longest": 61}, "validation": {"longest": 90}},
}


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Graph]:
    """The graph of specs given as texts by name."""

    def graph(**texts: str) -> Graph:
        (tmp_path / "specs").mkdir()
        for name, text in texts.items():
            (tmp_path / f"specs/{name}.toml").write_text(text)
        return compile_graph(load_specs(sorted((tmp_path / "specs").iterdir()), tmp_path))

    return graph


def plan_of(graph: Graph, **actions: Action) -> Plan:
    """A plan that keeps everything but the trainings, and but what ACTIONS says by kind."""
    chosen = {"train": Action.RUN} | actions
    return Plan(tuple(Decision(step.name, step.kind.name, chosen.get(step.kind.name, Action.KEEP)) for step in graph))


def estimated(graph: Graph, name: str, files: dict[str, Any], **actions: Action) -> Estimate | None:
    return estimate_of(graph[name], graph, plan_of(graph, **actions), MemoryStore(files=files))


def test_an_adapter_on_a_model_that_another_experiment_trains_is_known_before_either_ran(graph):
    both = graph(base=BASE, topic=ADAPTER)
    found = estimated(both, "train-topic", KNOWN)
    assert found is not None and (found.trainable, found.parameters) == (98304, 779520)
    assert found.disk == 4 * 98304 and found.rows == 16
    base = estimated(both, "train-base", KNOWN)
    assert base is not None and base.trainable == base.parameters == 681216 and base.disk == 4 * 681216


def test_recorded_vocabulary_and_length_win_over_the_recipe(graph):
    base = graph(base=BASE)
    found, bound = (estimated(base, "train-base", files) for files in (KNOWN, {}))
    assert found is not None and bound is not None
    assert (found.matter.length, found.matter.measured_length, found.matter.exact_model) == (61, True, True)
    assert (bound.matter.length, bound.matter.measured_length, bound.matter.exact_model) == (128, False, False)
    assert bound.parameters == 681216 + 300 * 128 and bound.memory.total > found.memory.total


PAIRS = BASE.replace(
    BASE[BASE.index("source  =") : BASE.index("[tokenization]")], 'source = { kind = "jsonl", path = "a.jsonl" }\nlayout = "preference"\n\n'
)


def test_a_pair_takes_two_rows_of_memory_and_is_called_a_pair(graph):
    both = graph(base=PAIRS.replace("global_batch = { rows = 16 }", 'global_batch = { rows = 8 }\nobjective = "orpo"'))
    tokens = {"metrics/tokenize-topic-pairs-tiny.json": {"train": {"longest": 61}}}
    found = estimated(both, "train-base", KNOWN | tokens)
    assert found is not None and (found.matter.length, found.matter.answers, found.rows) == (122, 2, 8)
    single = estimate(Parameters(method=Full(), global_batch={"rows": 16}), replace(found.matter, length=61, answers=1))
    assert single is not None and single.memory == found.memory
    assert "activations of 8 pairs of 122 tokens" in shortage("train-base", found, 0.001)


def test_records_of_steps_that_may_run_again_are_no_measure(graph):
    found = estimated(graph(base=BASE), "train-base", KNOWN, initialize=Action.MAYBE, tokenize=Action.RUN)
    assert found is not None and not found.matter.measured_length and not found.matter.exact_model


def test_one_unmeasured_task_makes_the_length_a_bound(graph):
    two = BASE.replace(
        "[tokenization]", BASE[BASE.index("[tasks.topic]") : BASE.index("[tokenization]")].replace("topic", "more", 1) + "[tokenization]"
    )
    found = estimated(graph(base=two.replace('["topic"]', '["topic", "more"]')), "train-base", KNOWN)
    assert found is not None and (found.matter.length, found.matter.measured_length) == (128, False)


LOCAL = '[model]\npath = "models/mine"\n\n'
CONFIG = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}


def with_model(model: str) -> str:
    return BASE.replace(BASE[BASE.index("[model]") : BASE.index("[tasks")], model)


@pytest.mark.parametrize(("config", "known"), [(CONFIG, True), ({"model_type": "llama"}, False), (None, False)], ids=str)
def test_a_local_model_is_known_by_its_config(graph, config, known):
    files = {} if config is None else {"models/mine/config.json": config}
    assert (estimated(graph(base=with_model(LOCAL)), "train-base", files) is not None) is known


def test_a_fetched_model_is_known_once_it_is_here(graph):
    hub = graph(base=with_model(f'[model]\nid = "someone/model"\nrevision = "{"a" * 40}"\n\n'))
    files = {"artifacts/fetch-model/config.json": CONFIG}
    found = estimated(hub, "train-base", files)
    assert found is not None and found.matter.exact_model
    assert estimated(hub, "train-base", {}) is None
    assert estimated(hub, "train-base", files, fetch=Action.RUN) is None


def test_micro_batches_bound_the_rows_but_never_beyond_the_global_batch(graph):
    small, large = (BASE + f"\n[resources]\nmicro_batch = {rows}\n" for rows in (4, 64))
    large = large.replace('"base"', '"large"')
    both = graph(small=small, large=large)
    assert [found.rows for name in ("base", "large") if (found := estimated(both, f"train-{name}", KNOWN))] == [4, 16]


HERE = {"platform": platform.platform(), "cores": os.cpu_count()}


@pytest.mark.parametrize(
    ("machine", "seconds"), [(HERE, 164.0), (HERE | {"cores": 4096}, None), (HERE | {"platform": "another"}, None), ({}, None)], ids=str
)
def test_times_are_this_machines_own_or_unknown(graph, machine, seconds):
    base = graph(base=BASE)
    store = MemoryStore(files=KNOWN)
    made = store.put(statement())
    store.entries["artifacts/train-base.provenance.json"] = made
    store.run_records["train-base", made.md5] = RunRecord("train-base", made.md5, machine=machine, measured={"seconds": 164.0})
    facts = facts_of(base["train-base"], plan_of(base), base, store)
    assert facts.seconds == seconds
    assert _time(facts.as_data(), Action.RUN) == (["2 min 44 s last time"] if seconds else ["time unknown"])
    assert _time(facts.as_data(), Action.KEEP) == []
    store.files["metrics/train-base.json"] = {"steps": 500}
    facts = facts_of(base["train-base"], plan_of(base), base, store)
    assert facts.last_seconds == seconds and facts.seconds == (seconds and 1.5 * seconds), "750 steps now"
    assert _time(facts.as_data(), Action.RUN) == (["about 4 min 6 s (2 min 44 s last time)"] if seconds else ["time unknown"])


def test_a_training_that_will_run_is_told_in_words(graph):
    both = graph(base=BASE, topic=ADAPTER)
    words = [facts_of(both["train-topic"], plan_of(both), both, MemoryStore(files=files)).sizes for files in (KNOWN, {})]
    assert words[0] == ("750 steps of 16 rows", "98.3 k trainable of 780 k", "~0.04 GB")
    assert words[1] == ("750 steps of 16 rows", "98.3 k trainable of at most 818 k", "~0.08 GB at max_length")


def test_a_kept_training_is_told_by_its_own_metrics(graph):
    base = graph(base=BASE)
    files = KNOWN | {"metrics/train-base.json": {"steps": 5, "parameters": 11, "trainable_parameters": 7}}
    facts = facts_of(base["train-base"], plan_of(base, train=Action.KEEP), base, MemoryStore(files=files))
    assert facts.sizes == ("5 steps", "7 trainable of 11") and (facts.parameters, facts.trainable_parameters) == (11, 7)


def test_facts_are_plain_json(graph):
    base = graph(base=BASE)
    data = facts_of(base["train-base"], plan_of(base), base, MemoryStore(files=KNOWN)).as_data()
    memory = data["memory"]
    assert json.loads(json.dumps(data)) == data
    assert set(memory) == {"weights", "gradients", "optimizer", "activations", "total", "rows", "length", "length_from", "exact_model"}
    assert (memory["rows"], memory["length"], memory["length_from"]) == (16, 61, "longest row")
    assert Facts().as_data() == dict.fromkeys(data) | {"sizes": []}


def short(graph: Graph, gigabytes: float, **actions: Action) -> list[str]:
    plan, store = plan_of(graph, **actions), MemoryStore(files=KNOWN)
    facts = {step.name: facts_of(step, plan, graph, store) for step in graph}
    return shortages(plan, facts, {"train-base": gigabytes})


def test_only_trainings_that_run_and_exceed_the_device_are_too_large(graph):
    base = graph(base=BASE)
    found = estimated(base, "train-base", KNOWN)
    assert found is not None
    assert short(base, found.memory.total / 1e9) == []
    assert len(short(base, found.memory.total / 1e9 - 1e-6)) == 1
    assert short(base, 0.001, train=Action.KEEP) == []


def test_the_message_names_step_parts_and_what_helps(graph):
    base = graph(base=BASE)
    found = estimated(base, "train-base", KNOWN)
    assert found is not None
    states, activations = found.memory.states / 1e9, found.memory.activations / 1e9
    (rows,) = short(base, states + activations * 0.51)
    assert "train-base does not fit its device" in rows and "activations of 16 rows of 61 tokens" in rows
    assert "set resources.micro_batch to 8 or less" in rows
    (length,) = short(base, states + activations / 100)
    assert "lower tokenization.max_length" in length
    (method,) = short(base, states / 2)
    assert 'training.method to "lora"' in method and "micro_batch" not in method


def test_what_cannot_be_estimated_is_named(graph):
    base = graph(base=with_model(LOCAL))
    plan = plan_of(base)
    facts = {step.name: facts_of(step, plan, base, MemoryStore()) for step in base}
    assert unchecked(plan, facts, {"train-base": 8.0}) == ["train-base"] and shortages(plan, facts, {"train-base": 8.0}) == []


@pytest.mark.parametrize(
    ("size", "words"), [(1, "0.01 GB"), (2.34e7, "0.02 GB"), (1.26e9, "1.3 GB"), (80e9, "80.0 GB"), (123.4e9, "123 GB")]
)
def test_sizes_in_words(size, words):
    assert gigabytes(size) == words


# Through the command line


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line in a workspace of BASE whose [resources] are given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "specs").mkdir()

    def engine(resources: str, *command: str) -> Result:
        (tmp_path / "specs/base.toml").write_text(f"{BASE}\n[resources]\n{resources}\n")
        return CliRunner().invoke(app, ["--workspace", str(tmp_path), "plan", *command])

    return engine


def test_strict_refuses_what_cannot_fit_and_plain_warns(engine):
    plain, strict = engine("device_memory = 0.01"), engine("device_memory = 0.01", "--strict")
    assert (plain.exit_code, strict.exit_code) == (2, 1)
    for done in (plain, strict):
        assert "warning: train-base does not fit its device" in done.stderr and "device_memory is 0.01 GB" in done.stderr
        assert "750 steps of 16 rows · 720 k trainable of at most 720 k" in done.stdout and "time unknown" in done.stdout


@pytest.mark.parametrize("resources", ["", "device_memory = 24", "device_memory = 0.5"])
def test_strict_lets_pass_what_fits_or_has_no_stated_device(engine, resources):
    done = engine(resources, "--strict")
    assert done.exit_code == 2 and "does not fit" not in done.stderr


def test_json_has_the_facts_of_each_step_beside_what_it_had(engine):
    done = engine("device_memory = 0.01", "--json", "--strict")
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    assert done.exit_code == 1 and "does not fit" in done.stderr
    assert all(set(step) == {"name", "kind", "action", "reasons", "facts"} for step in steps.values())
    assert steps["train-base"]["facts"]["memory"]["length_from"] == "max_length"
    assert steps["resolve"]["facts"]["memory"] is None and steps["resolve"]["facts"]["sizes"] == []


def test_a_device_without_memory_is_a_located_error(engine):
    from engine.core.errors import UserError

    done = engine("device_memory = 0")
    assert isinstance(done.exception, UserError) and "device_memory" in str(done.exception) and "specs/base.toml" in str(done.exception)


def test_limits_are_those_of_each_spec(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/a.toml").write_text(f"{BASE}\n[resources]\ndevice_memory = 24\n")
    (tmp_path / "specs/b.toml").write_text(BASE.replace('"base"', '"other"'))
    assert Project(Workspace.at(tmp_path)).outline.device_memory == {"train-base": 24.0}
