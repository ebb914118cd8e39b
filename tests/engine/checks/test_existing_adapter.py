"""An adapter that was trained elsewhere is compared with base and method before anything runs, and what does not fit has its place."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from engine.checks.existing_adapter import unlike_bases
from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project
from engine.spec.pinning import moving_in
from tests.stages.generate.tiny_models import INNER, WIDTH, llama

TASK = """
[tasks.a]
source = { kind = "jsonl", path = "a.jsonl" }
prompts = ["Say {{ word }}"]
teacher = { kind = "gold", column = "word" }
max_new_tokens = 4
"""
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "bias": "none", "use_dora": False}
SIZES = {"self_attn.q_proj": (WIDTH, WIDTH), "mlp.down_proj": (INNER, WIDTH)}
METHOD = 'method = { kind = "lora", r = 2, lora_alpha = 4, target_modules = ["q_proj", "down_proj"] }'


def adapter(folder, config=None, sizes=SIZES, rank=2, more=None, layers=1):
    """An adapter of peft's form, of which only the shapes matter."""
    folder.mkdir(parents=True)
    tensors = dict(more or {})
    for number in range(layers):
        for name, (inputs, outputs) in sizes.items():
            place = f"base_model.model.model.layers.{number}.{name}"
            tensors |= {f"{place}.lora_A.weight": np.zeros((rank, inputs), np.float32)}
            tensors |= {f"{place}.lora_B.weight": np.zeros((outputs, rank), np.float32)}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | (config or {})))


@pytest.fixture
def said(tmp_path):
    """The problems of a spec with an adapter: what is said, the text at its place, and the hint."""

    def said(method=None, model='path = "base"\nadapter = "adapters/theirs"'):
        if not (tmp_path / "base").exists():
            llama(tmp_path / "base")
        (tmp_path / "a.jsonl").write_text('{"word": "x"}\n')
        (tmp_path / "specs").mkdir(exist_ok=True)
        training = f'[mixture]\ntasks = ["a"]\n[training]\n{method}\n' if method else ""
        (tmp_path / "specs/toy.toml").write_text(f'[experiment]\nname = "toy"\n[model]\n{model}\n{TASK}\n{training}')
        try:
            return Project(Workspace.at(tmp_path)).graph and []
        except UserError as error:
            return [(one.what, one.where.source[one.where.column - 1 :][: one.where.length], one.hint) for one in error.problems]

    return said


def test_an_adapter_that_fits_is_read_as_it_is_and_trained_further(said, tmp_path):
    adapter(tmp_path / "adapters/theirs")
    assert said() == [] and said(METHOD) == [] and said(METHOD.replace('"lora"', '"qlora"')) == []


HERE = '"adapters/theirs"'


def test_what_is_no_adapter(said, tmp_path):
    ((what, at, hint),) = said()
    assert (what, at) == ("folder not found: adapters/theirs", HERE)
    assert 'adapter.id = "adapters/theirs" and adapter.revision' in hint
    (tmp_path / "adapters/theirs").mkdir(parents=True)
    ((what, at, hint),) = said()
    assert (what, at) == ("adapters/theirs contains no adapter: adapter_config.json is missing", HERE)
    (tmp_path / "adapters/theirs/adapter_config.json").write_text("{")
    ((what, at, hint),) = said()
    assert what.startswith("adapters/theirs/adapter_config.json is not valid JSON") and at == HERE
    (tmp_path / "adapters/theirs/adapter_config.json").write_text(json.dumps(CONFIG))
    ((what, at, hint),) = said()
    assert what == "adapters/theirs contains no adapter weights: adapter_model.safetensors is missing" and at == HERE
    (tmp_path / "adapters/theirs/adapter_model.safetensors").write_bytes(b"no")
    ((what, at, hint),) = said()
    assert (what, at) == ("adapters/theirs/adapter_model.safetensors is not a safetensors file", HERE)


def test_a_pickle_is_refused_and_the_hint_converts_it(said, tmp_path):
    folder = tmp_path / "adapters/theirs"
    adapter(folder)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    ((what, at, hint),) = said()
    assert "adapter_model.safetensors is missing" in what and at == HERE
    code = hint.partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    assert said() == []


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (
            {"sizes": {"self_attn.q_proj": (8, 8)}},
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has the shape [2, 8], and the layer has 16 inputs",
        ),
        ({"layers": 2}, "llama with this configuration has no layer model.layers.1.mlp.down_proj"),
        ({"sizes": {"self_attn.query": (16, 16)}}, "llama with this configuration has no layer model.layers.0.self_attn.query"),
        (
            {"config": {"r": 8}},
            "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight has rank 2, and adapter_config.json says r = 8",
        ),
        (
            {"more": {"base_model.model.model.embed_tokens.weight": np.zeros((300, 16), np.float32)}},
            "model.embed_tokens.weight has 300 rows, and the model's vocabulary has 257 tokens",
        ),
    ],
)
def test_an_adapter_of_another_model(said, tmp_path, given, what):
    adapter(tmp_path / "adapters/theirs", **given)
    ((said_, at, hint),) = said()
    assert (said_, at) == (f"the adapter in adapters/theirs does not fit the model: {what}", HERE)
    assert hint == "it was trained on another model; set that one in [model]"


@pytest.mark.parametrize(
    ("config", "method", "what", "at"),
    [
        ({}, METHOD.replace("r = 2", "r = 4"), "method.r is 4, but the adapter in adapters/theirs has 2", "4"),
        ({"lora_alpha": 32}, METHOD, "method.lora_alpha is 4, but the adapter in adapters/theirs has 32", "4"),
        ({"use_dora": True}, METHOD, "method.use_dora is false, but the adapter in adapters/theirs has true", None),
        ({"use_rslora": True}, METHOD, "method.use_rslora is false, but the adapter in adapters/theirs has true", None),
        (
            {"modules_to_save": ["lm_head"]},
            METHOD,
            'method.modules_to_save is [], but the adapter in adapters/theirs has ["lm_head"]',
            None,
        ),
        (
            {},
            METHOD.replace('["q_proj", "down_proj"]', '["q_proj"]'),
            "method.target_modules selects q_proj, but the adapter in adapters/theirs has down_proj, q_proj",
            '["q_proj"]',
        ),
        ({}, 'method = "ia3"', "method ia3 cannot continue the lora adapter in adapters/theirs", '"ia3"'),
        ({}, 'method = "full"', "method full trains the whole model and cannot continue the adapter in adapters/theirs", '"full"'),
        (
            {"rank_pattern": {"q_proj": 1}},
            METHOD,
            "the adapter in adapters/theirs cannot be trained further: it uses rank_pattern of peft, which the methods of a spec do not "
            "have",
            HERE,
        ),
        (
            {"peft_type": "LOHA"},
            METHOD,
            "the adapter in adapters/theirs cannot be trained further: its peft_type is LOHA; methods exist for IA3, LORA, PREFIX_TUNING, "
            "PROMPT_TUNING",
            HERE,
        ),
    ],
)
def test_a_method_of_another_form_is_refused_where_it_is_set(said, tmp_path, config, method, what, at):
    adapter(tmp_path / "adapters/theirs", config)
    assert said() == [], "it can be evaluated"
    ((said_, place, _),) = said(method)
    assert said_ == what and (at is None or place == at)


def test_an_update_of_changed_weights_is_not_trained_on_the_unchanged_ones(said, tmp_path):
    adapter(tmp_path / "adapters/theirs", {"init_lora_weights": "pissa_niter_4"})
    ((what, at, _),) = said(METHOD)
    assert "init_lora_weights is pissa_niter_4: it is an update of base weights that peft changed" in what and at == HERE


HUB = f'id = "owner/base"\nrevision = "{"a" * 40}"\nadapter = {{ id = "owner/theirs", revision = "{"b" * 40}" }}'


def test_an_adapter_of_the_hub_is_fetched_and_pinned(said, tmp_path):
    assert said(model=HUB) == []
    graph = Project(Workspace.at(tmp_path)).graph
    assert graph["fetch-adapter-theirs"].parameters.revision == "b" * 40
    assert graph["predict-toy"].inputs["adapter"].producer == "fetch-adapter-theirs"
    ((what, at, _),) = said(model=HUB.replace("b" * 40, "main"))
    assert what.startswith("model.adapter.revision must be a full commit hash") and at == '"main"'
    (moving,) = moving_in(tmp_path / "specs/toy.toml", "toy.toml")
    assert (moving.id, moving.revision, moving.repository) == ("owner/theirs", "main", "model")


def test_an_adapter_of_another_base_on_the_hub_is_warned_about_once_it_is_here(said, tmp_path):
    said(model=HUB)
    adapter(tmp_path / "artifacts/fetch-adapter-theirs", {"base_model_name_or_path": "someone/base"})
    graph = Project(Workspace.at(tmp_path)).graph
    (warning,) = unlike_bases(graph, tmp_path)
    assert warning.what == "the adapter was trained on someone/base, and the model is owner/base" and warning.where.line == 6
    (tmp_path / "artifacts/fetch-adapter-theirs/adapter_config.json").write_text(
        json.dumps(CONFIG | {"base_model_name_or_path": "owner/base", "revision": "c" * 40})
    )
    (warning,) = unlike_bases(graph, tmp_path)
    assert warning.hint == f'set model.revision = "{"c" * 40}"' and warning.severity == "warning"
