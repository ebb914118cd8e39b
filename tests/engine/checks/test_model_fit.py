"""What does not fit between method and model is told from the spec alone, at the line that asks for it, before any work."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from engine.build.machine import devices_here, disk_shortage, has_gpu, missing
from engine.checks.model_fit import misfits
from engine.compile.compiler import compile_graph
from engine.core.errors import Problem, UserError
from engine.core.graph import Graph
from engine.spec.load import load_specs
from stages.train.methods import Ia3, Lora
from tests.stages.train.matrix import FAMILIES, METHODS, TRAINS, outcome

SPEC = """\
[experiment]
name = "NAME"

[model]
name         = "tiny"
architecture = { kind = "ARCHITECTURE", hidden_size = 32, layers = 1, heads = 4 }
tokenizer    = { vocab_size = 300 }

[tasks.topic]
source  = { kind = "synthetic", generator = "reports", rows = 8, seed = 3 }
prompts = ["Name the topic.\\n{{ text }}\\n"]
teacher = { kind = "rules", rule = "topic" }

[mixture]
tasks = ["topic"]

[training]
method = METHOD
"""


def spec(method: str, architecture: str = "falcon", name: str = "toy") -> str:
    return SPEC.replace("METHOD", method).replace("ARCHITECTURE", architecture).replace("NAME", name)


def further(method: str, name: str = "further") -> str:
    text = spec(method, name=name)
    return text.replace(text[text.index("[model]") : text.index("[tasks")], '[model]\nexperiment = "toy"\n\n')


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Graph]:
    def graph(*texts: str) -> Graph:
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.toml").write_text(text)
        return compile_graph(load_specs([tmp_path / f"{number}.toml" for number in range(len(texts))], tmp_path))

    return graph


@pytest.fixture
def found(graph, tmp_path) -> Callable[..., list[Problem]]:
    return lambda *texts: misfits(graph(*texts), tmp_path)


def marked(problem: Problem) -> str:
    """What the caret points at."""
    where = problem.where
    assert where is not None and where.source is not None and where.column is not None
    return where.source[where.column - 1 :][: where.length]


FINE = ['"full"', '"lora"', '{ kind = "qlora", r = 32 }', '{ kind = "lora", target_modules = ["dense", "query_key_value"] }', '"ia3"']


@pytest.mark.parametrize("method", [*FINE, '{ kind = "lora", target_modules = ["0.mlp.dense_h_to_4h", "lm_head"] }', '"prefix_tuning"'])
def test_what_fits_is_let_pass(found, method):
    assert found(spec(method)) == []


WRONG = [
    ('{ kind = "lora", target_modules = ["dense", "q_proj"] }', '"q_proj"', "no linear layer 'q_proj'", "query_key_value"),
    ('{ kind = "qlora", target_modules = ["dens"] }', '"dens"', "no linear layer 'dens'", "did you mean 'dense'?"),
    ('{ kind = "lora", target_modules = [] }', "[]", "target_modules is empty", "all-linear"),
    ('{ kind = "lora", r = 33 }', "33", "exceeds the smaller dimension of", "at most 32"),
    ('{ kind = "ia3", target_modules = ["key"], feedforward_modules = ["dense_4h_to_h"] }', '"key"', "no linear layer 'key'", "dense"),
    ('{ kind = "ia3", feedforward_modules = ["wo"] }', '"wo"', "no linear layer 'wo'", "dense_h_to_4h"),
]


@pytest.mark.parametrize(("method", "at", "what", "hint"), WRONG, ids=[wrong[0] for wrong in WRONG])
def test_layers_that_do_not_fit_are_shown_where_they_are_asked_for(found, method, at, what, hint):
    (problem,) = found(spec(method))
    assert marked(problem) == at and what in problem.what and hint in (problem.hint or "")


def test_every_linear_layer_is_listed(found):
    (problem,) = found(spec('{ kind = "lora", target_modules = ["nothing"] }', "llama"))
    assert "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in (problem.hint or "")


def test_a_method_that_fails_on_an_architecture_names_what_works(found):
    (problem,) = found(spec('{ kind = "lora", init_lora_weights = "olora" }', "gpt2"))
    assert "olora" in problem.what and 'use "pissa"' in (problem.hint or "") and problem.where and problem.where.line == 18
    assert found(spec('{ kind = "lora", init_lora_weights = "olora" }', "llama")) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_refuses_just_what_the_tests_saw_fail(family):
    architecture = FAMILIES[family]
    for name, method in METHODS.items():
        assert (method.refused(architecture.kind) is None) == (outcome(name, family) == TRAINS)


LOCAL = '[model]\npath = "mine"\n\n'


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ({"model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 9}, 1),
        ({"model_type": "x"}, 0),
        ("{", 0),
    ],
)
def test_a_local_model_is_asked_by_its_configuration(found, tmp_path, config, problems):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    text = spec('{ kind = "lora", target_modules = ["dense"], r = 2 }')
    assert len(found(text.replace(text[text.index("[model]") : text.index("[tasks")], LOCAL))) == problems


def test_an_unknown_architecture_asks_ia3_for_names(found, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text('{"model_type": "mamba"}')
    text = spec('"ia3"')
    (problem,) = found(text.replace(text[text.index("[model]") : text.index("[tasks")], LOCAL))
    assert "no default layers for mamba" in problem.what and "method.target_modules" in problem.what


def test_a_training_of_a_trained_model_is_asked_by_the_first_ones_configuration(found):
    (problem,) = found(spec('"full"'), further('{ kind = "lora", r = 64 }'))
    assert "exceeds the smaller dimension" in problem.what and problem.where and problem.where.file == "1.toml"


# Adapters that are trained further


def test_an_adapter_is_trained_further_on_the_same_base(graph):
    both = graph(spec('{ kind = "lora", r = 8 }'), further('{ kind = "lora", r = 8, lora_dropout = 0.1 }'))
    steps = both["train-further"].inputs
    assert steps["model"] == both["train-toy"].inputs["model"] and steps["adapter"].path == "artifacts/train-toy"
    assert both["predict-further"].inputs["adapter"].path == "artifacts/train-further"
    assert "adapter" not in both["train-toy"].inputs


def test_chains_go_on_as_long_as_one_likes(graph):
    third = further('"lora"', "third").replace('"toy"', '"further"')
    chain = graph(spec('"lora"'), further('"lora"'), third)
    assert chain["train-third"].inputs["adapter"].producer == "train-further"
    assert chain["train-third"].inputs["model"].producer == "initialize-tiny"


def test_a_first_update_out_of_the_base_is_continued_in_the_form_in_which_it_is_saved(graph):
    first = spec('{ kind = "lora", r = 8, lora_alpha = 16, init_lora_weights = "pissa" }')
    assert "train-further" in graph(first, further('{ kind = "lora", r = 16, lora_alpha = 32 }'))
    with pytest.raises(UserError, match=r"method\.r is 8, but the adapter of 'toy' has 16"):
        graph(first, further('{ kind = "lora", r = 8, lora_alpha = 32 }'))


OTHER = [
    ('"full"', '"full"', "method full cannot continue the lora adapter of experiment"),
    ('"ia3"', '"ia3"', "method ia3 cannot continue"),
    ('{ kind = "lora", r = 4 }', "4", "method.r is 4, but the adapter of 'toy' has 16"),
    ('{ kind = "lora", use_dora = true }', "true", "method.use_dora is true"),
    ('{ kind = "lora", init_lora_weights = "pissa" }', '"pissa"', 'init_lora_weights is "pissa"'),
]


@pytest.mark.parametrize(("method", "at", "what"), OTHER, ids=[other[0] for other in OTHER])
def test_another_form_is_refused_where_it_stands(graph, method, at, what):
    with pytest.raises(UserError) as caught:
        graph(spec('"lora"'), further(method))
    (problem,) = caught.value.problems
    assert what in problem.what and marked(problem) == at and problem.hint


# What a method refuses by itself

ALONE = [
    ('{ kind = "qlora", init_lora_weights = "pissa" }', "qlora quantises them"),
    ('{ kind = "lora", use_dora = true, init_lora_weights = "olora" }', "is incompatible with"),
    ('{ kind = "lora", init_lora_weights = "orthogonal", r = 3 }', "even r"),
    ('{ kind = "full", bits = 4 }', "unknown key 'bits'"),
    ('{ kind = "lora", init_lora_weights = "eva" }', "unknown value 'eva'"),
]


@pytest.mark.parametrize(("method", "what"), ALONE, ids=[alone[0] for alone in ALONE])
def test_settings_that_exclude_each_other_are_located(graph, method, what):
    with pytest.raises(UserError) as caught:
        graph(spec(method))
    (problem,) = caught.value.problems
    assert what in problem.what and problem.where and problem.where.line == 18


def test_a_prefix_and_checkpointed_layers_are_refused_where_they_are_asked_for(found):
    (problem,) = found(spec('"prefix_tuning"') + "\n[resources]\ngradient_checkpointing = true\n")
    assert marked(problem) == "true" and "prompt_tuning" in (problem.hint or "")
    assert found(spec('"prompt_tuning"') + "\n[resources]\ngradient_checkpointing = true\n") == []


def test_full_points_to_qlora_for_its_keys(graph):
    with pytest.raises(UserError) as caught:
        graph(spec('{ kind = "full", bits = 4 }'))
    assert "'bits' is a key of kind 'qlora'" in (caught.value.problems[0].hint or "")


def test_betas_without_use_are_refused(graph):
    with pytest.raises(UserError, match="adafactor has no betas"):
        graph(spec('"full"') + 'optimizer = "adafactor"\nbetas = [0.9, 0.95]\n')


def test_the_light_list_of_methods_is_whole():
    assert {Lora, Ia3} <= {type(method) for method in METHODS.values()} and get_args(Lora.model_fields["kind"].annotation) == ("lora",)


def test_a_gpu_is_seen_by_what_its_driver_shows(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not has_gpu(tmp_path)


def test_devices_are_counted_by_what_shows_them(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices_here(tmp_path) == len(os.sched_getaffinity(0))
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    assert devices_here(tmp_path) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices_here(tmp_path) == 1
    (tmp_path / "amd").mkdir()
    (tmp_path / "amd/kfd").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices_here(tmp_path / "amd") is None, "their number is not to be seen there"


@pytest.mark.parametrize(
    ("resources", "at", "what", "hint"),
    [
        (
            'zero = { stage = 3, offload_parameters = "nvme", path = "/no/such/disk" }',
            '"/no/such/disk"',
            "/no/such/disk, which is not a folder",
            "offload to cpu",
        ),
        ('zero = { stage = 3, offload_optimizer = "nvme", path = "0.toml" }', '"0.toml"', "0.toml, which is not a folder", "NVMe"),
        ("devices = 4096", "4096", "resources.devices is 4096, but this machine has", "or less"),
    ],
)
def test_disks_and_devices_that_are_not_there_are_told_at_their_line(graph, monkeypatch, resources, at, what, hint):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (problem,) = missing(graph(spec('"lora"') + f"\n[resources]\n{resources}\n")["train-toy"])
    assert marked(problem) == at and what in problem.what and hint in problem.hint


def test_a_disk_that_is_there_is_not_refused(graph, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    zero = f'zero = {{ stage = 3, offload_parameters = "nvme", path = "{tmp_path}" }}'
    assert list(missing(graph(spec('"lora"') + f"\n[resources]\n{zero}\n")["train-toy"])) == []


def test_a_disk_without_room_for_checkpoints_is_told_before_anything_runs(graph, tmp_path, monkeypatch):
    steps = graph(spec('"full"'), further('"lora"'))
    assert all(list(disk_shortage(steps[name], steps, tmp_path)) == [] for name in ("train-toy", "train-further"))
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    (problem,) = disk_shortage(steps["train-toy"], steps, tmp_path)
    # 19,296 weights of 4 bytes, with two moments each, three times, and the best ones.
    assert marked(problem) == '"full"' and "checkpoints need" in problem.what and "engine gc" in problem.hint
    assert list(disk_shortage(steps["train-further"], steps, tmp_path)) == [], "an adapter of it takes far less"


CHAT = "\n[tokenization]\nformat = FORMAT\n"
NO_TEMPLATE = 'format "chat" needs a chat template, but '


def chat(form: str = '"chat"', more: str = "") -> str:
    return spec('"full"') + CHAT.replace("FORMAT", form) + more


@pytest.mark.parametrize("more", ["", 'special_tokens = ["<x>"]\n'])
def test_chats_of_a_model_from_scratch_need_a_template(found, more):
    (problem,) = found(chat(more=more))
    assert problem.what == f"{NO_TEMPLATE}the tokenizer of a model from scratch has none" and "template_file" in problem.hint
    assert marked(problem) == '"chat"'


@pytest.mark.parametrize(
    "form", ['{ kind = "chat", template = "{{ messages }}" }', '{ kind = "chat", template_file = "a.jinja" }', '"plain"']
)
def test_chats_with_a_template_of_the_spec_are_let_pass(found, form):
    assert found(chat(form)) == []


def test_a_chat_template_of_the_spec_that_is_not_valid_is_located(found):
    with pytest.raises(UserError) as caught:
        found(chat(r'{ kind = "chat", template = "{{ messages }}\n{% if %}" }'))
    (problem,) = caught.value.problems
    assert problem.what.startswith("tokenization.format.template is not a valid chat template: ") and problem.where.line is not None
    assert problem.hint == "line 2 of the template is '{% if %}'"


@pytest.mark.parametrize(
    ("config", "beside", "named", "said"),
    [
        ({"eos_token": "</s>"}, False, [], "template_file"),
        ({"eos_token": "</s>"}, True, ["tokenizer.json", "tokenizer_config.json"], "add chat_template.jinja to model.tokenizer_files"),
        ({"eos_token": "</s>"}, True, ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"], None),
        ({"chat_template": "{{ messages }}"}, False, [], None),
    ],
)
def test_chats_of_a_local_model_need_a_template_of_its_own_or_of_the_spec(found, tmp_path, config, beside, named, said):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tokenizer_config.json").write_text(json.dumps(config))
    if beside:
        (tmp_path / "models/chat_template.jinja").write_text("{{ messages }}")
    text = chat()
    files = f"tokenizer_files = {json.dumps(named)}\n" if named else ""
    model = f'[model]\npath = "models"\n{files}\n'
    problems = found(text.replace(text[text.index("[model]") : text.index("[tasks")], model))
    assert [problem.what for problem in problems] == ([] if said is None else [f"{NO_TEMPLATE}models/tokenizer_config.json has none"])
    assert said is None or said in problems[0].hint
