"""What a user can get wrong: one located error each, exit code 1, nothing half-written, no traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from engine.dvc import run_records
from engine.identity.provenance import parse
from engine.identity.text import folder_digest
from tests.support.commands import engine

SPEC = """\
[experiment]
name = "toy"

[model]
name = "tiny"
architecture = { kind = "gpt2", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }
tokenizer = { vocab_size = 300 }

[tasks.answer]
source = { kind = "jsonl", path = "data/rows.jsonl" }
prompts = ["Say {{ question }}:"]
teacher = { kind = "gold", column = "answer" }

[mixture]
tasks = ["answer"]

[training]
method = "full"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose spec is right: not to be changed."""
    root = tmp_path_factory.mktemp("made") / "workspace"
    (root / "specs").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "specs/toy.toml").write_text(SPEC)
    (root / "data/rows.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}\n')
    assert module(root, "engine", "init", ".").returncode == 0
    return root


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "workspace")
    return tmp_path / "workspace"


def module(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=root, env=dvc_environment(), capture_output=True, text=True, check=False)


def edit(root: Path, old: str, new: str) -> None:
    path = root / "specs/toy.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr
    for text in expected:
        assert text in done.stderr, done.stderr


def test_a_good_workspace_is_fine(workspace):
    done = engine(workspace, "check")
    assert done.returncode == 0 and "1 spec OK, 10 steps" in done.stderr


def test_a_missing_source_file(workspace):
    edit(workspace, "data/rows.jsonl", "data/row.jsonl")
    for verb in ("check", "plan", "compile"):
        refused(engine(workspace, verb), "file not found: data/row.jsonl", "specs/toy.toml:10:35", "^^^")
    assert not (workspace / "dvc.yaml").exists()


def test_a_misspelled_key(workspace):
    edit(workspace, "prompts", "promts")
    done = module(workspace, "engine", "check")
    refused(done, "unknown key 'promts'", "specs/toy.toml:11:1", "did you mean 'prompts'?")
    assert (done.stdout, done.stderr) == ("", engine(workspace, "check").stderr), "as in a process, so without one"


def test_all_problems_of_a_file_at_once(workspace):
    edit(workspace, "prompts", "promts")
    edit(workspace, '"full"', '"ful"')
    done = engine(workspace, "check")
    assert done.returncode == 1 and done.stderr.count("error:") == 2


def test_a_spec_that_is_not_utf8(workspace):
    (workspace / "specs/toy.toml").write_bytes(SPEC.encode() + b'description = "\xff"\n')
    refused(engine(workspace, "check"), "not UTF-8", "specs/toy.toml:19")


def test_a_task_that_does_not_exist(workspace):
    edit(workspace, 'tasks = ["answer"]', 'tasks = ["anwser"]')
    refused(engine(workspace, "check"), "anwser", "specs/toy.toml:15", "did you mean 'answer'?")


def test_one_step_name_with_two_meanings(workspace):
    (workspace / "specs/toy2.toml").write_text(SPEC.replace('name = "toy"', 'name = "toy2"').replace("Say", "Tell"))
    done = engine(workspace, "compile")
    refused(done, "two different steps are named 'generate-answer'", "they differ in prompts", "specs/toy.toml:9", "specs/toy2.toml:9")
    assert "rename the task of one of them: [tasks.NAME]" in done.stderr
    assert not (workspace / "dvc.yaml").exists()


def test_two_specs_of_one_name(workspace):
    (workspace / "specs/toy2.toml").write_text(SPEC)
    refused(engine(workspace, "check"), "specs/toy.toml:2", "specs/toy2.toml:2")


def test_a_model_path_without_a_config(workspace):
    (workspace / "model").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (workspace / "model" / name).write_text("{}")
    text = SPEC[: SPEC.index("[model]")] + '[model]\npath = "model"\n\n' + SPEC[SPEC.index("[tasks.answer]") :]
    (workspace / "specs/toy.toml").write_text(text)
    refused(engine(workspace, "plan"), "not a model folder: model has no config.json", "specs/toy.toml:5:8")


def test_a_workspace_that_is_none(tmp_path):
    refused(engine(tmp_path, "plan"), "no spec matches specs/*.toml", "engine init")
    refused(engine(tmp_path, "--workspace", "nowhere", "plan"), "folder not found: nowhere")


def test_a_spec_that_is_none_of_the_workspaces(workspace):
    refused(engine(workspace, "plan", "specs/typo.toml"), "no such spec, experiment or step: specs/typo.toml", "specs/toy.toml")
    refused(engine(workspace, "plan", "generate-anser"), "no such spec, experiment or step: generate-anser", "mean 'generate-answer'?")


def run_first_step(workspace: Path) -> subprocess.CompletedProcess[str]:
    """`generate-answer`, as DVC runs it."""
    assert engine(workspace, "compile").returncode == 0
    assert engine(workspace, "resolve").returncode == 0
    done = module(workspace, "stages", "generate", "generate-answer")
    assert not list((workspace / "artifacts").glob("*answer*")) or done.returncode == 0
    assert not list((workspace / "metrics").glob("*.json")) or done.returncode == 0
    return done


def test_a_line_that_is_no_json(workspace):
    with (workspace / "data/rows.jsonl").open("a") as file:
        file.write('{"question": "e", answer: "f"}\n')
    refused(run_first_step(workspace), "not valid JSON", "data/rows.jsonl:3:19")


def test_a_missing_column(workspace):
    with (workspace / "data/rows.jsonl").open("a") as file:
        file.write('{"question": "e", "anser": "f"}\n')
    refused(run_first_step(workspace), "no column 'answer'", "data/rows.jsonl:3", "did you mean 'anser'?")


def test_a_template_that_names_an_unknown_field(workspace):
    edit(workspace, "{{ question }}", "{{ qestion }}")
    refused(run_first_step(workspace), "qestion", "data/rows.jsonl:1", "did you mean 'question'?")


def test_an_empty_task(workspace):
    (workspace / "data/rows.jsonl").write_text("\n\n")
    refused(run_first_step(workspace), "no rows are left", "specs/toy.toml:9")


def test_a_good_first_step_leaves_rows_metrics_and_provenance(workspace):
    assert run_first_step(workspace).returncode == 0
    rows = [json.loads(line) for line in (workspace / "artifacts/generate-answer/rows.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["completion"]) for row in rows] == [("Say a:", "b"), ("Say c:", "d")]
    provenance = parse((workspace / "artifacts/generate-answer.provenance.json").read_text())
    assert provenance and provenance.digest == folder_digest(workspace / "artifacts/generate-answer")
    ran = run_records.parse((workspace / "artifacts/generate-answer.run.json").read_text())
    assert ran and ran.spec == "specs/toy.toml:9:8" and set(provenance.beside) == {"metrics/generate-answer.json"}
    assert json.loads((workspace / "metrics/generate-answer.json").read_text())["rows_in"] == 2


def test_wrong_versions_refuse_to_run(workspace):
    assert engine(workspace, "compile").returncode == 0 and engine(workspace, "resolve").returncode == 0
    identity = workspace / "artifacts/identity/generate-answer.json"
    content = json.loads(identity.read_text())
    content["environment"]["jinja2"] = "1.0"
    identity.write_text(json.dumps(content))
    refused(
        module(workspace, "stages", "generate", "generate-answer"),
        "jinja2",
        "the lock says 1.0",
        "pip install jinja2==1.0",
        "engine lock --upgrade",
    )


def test_a_step_that_does_not_exist(workspace):
    refused(module(workspace, "stages", "generate", "generate-nothing"), "unknown step 'generate-nothing'")
    refused(module(workspace, "stages", "generat", "x"), "did you mean 'generate'?")
    assert module(workspace, "stages").returncode == 2


def test_building_without_a_dvc_repository(tmp_path):
    (tmp_path / "specs").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "specs/toy.toml").write_text(SPEC)
    refused(engine(tmp_path, "build"), "not a DVC repository", "engine init")


@pytest.mark.parametrize("precision", ["float16", "tf32"])
def test_a_precision_of_gpus_where_there_is_none(workspace, precision, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    edit(workspace, 'method = "full"', f'method = "full"\nprecision = "{precision}"')
    assert engine(workspace, "check").returncode == 0, "another machine may have one"
    refused(engine(workspace, "build"), f"precision {precision} needs a GPU", "specs/toy.toml:19", "bfloat16")
    assert not (workspace / "artifacts").exists()


def test_layers_that_the_model_has_not(workspace):
    edit(workspace, 'method = "full"', 'method = { kind = "lora", r = 4, target_modules = ["c_atn"] }')
    refused(engine(workspace, "check"), "no linear layer 'c_atn'", "specs/toy.toml:18", "did you mean 'c_attn'?", "c_attn, c_fc, c_proj")


def test_a_rank_above_the_layer(workspace):
    edit(workspace, 'method = "full"', 'method = { kind = "lora", r = 17 }')
    refused(engine(workspace, "plan"), "exceeds the smaller dimension", "specs/toy.toml:18", "at most 16")
