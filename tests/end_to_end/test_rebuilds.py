"""Edits and what `dvc repro` then runs: exactly what the edit concerns, as the plan had said."""

import json
import shutil

import pytest
import yaml

from engine.identity.code import OBSERVES
from tests.end_to_end.conftest import Place, actions, spec

pytestmark = pytest.mark.slow

ONE = {"train-one", "predict-one"}
TWO = {"train-two", "predict-two"}
MEASURES = {"evaluate-one", "evaluate-two", "score-one", "score-two"}
"""Another adapter may give the same answers, and then nothing is measured again."""


def test_a_second_build_has_nothing_to_do(place: Place):
    assert set(place.plan().values()) == {"keep"}
    assert set(place.repro().values()) == {"keep"}
    assert place.run("engine", "plan").returncode == 0


def test_another_rank_reruns_that_experiment_alone(place: Place):
    place.edit("specs/one.toml", "[mixture]", '[training]\nmethod = { kind = "lora", r = 4, lora_alpha = 4 }\n\n[mixture]')
    assert place.reasons("train-one") == ["method.r  2 → 4"]
    assert place.repro_as_planned() - MEASURES == ONE
    diff = json.loads(place.run("dvc", "params", "diff", "--json").stdout)
    assert diff["params.yaml"] == {"train-one.method.r": {"old": 2, "new": 4, "diff": 2}}
    place.edit("specs/one.toml", "r = 4", "r = 2")
    assert place.plan()["train-one"] == "restore"
    assert place.repro_as_planned() == set()


def test_another_template_reruns_that_task_and_the_trainings_that_use_it(place: Place):
    place.edit("specs/parts/common.toml", "Say {{ word }}:", "Tell {{ word }}:")
    task = {"generate-a", "split-a", "tokenize-a-toy"}
    ran = place.repro_as_planned()
    # The mixtures read the number of rows and come out the same where nothing but the text has changed.
    assert ran - {"mix-one", "mix-two"} - MEASURES == task | ONE | TWO


def test_a_comment_reruns_nothing(place: Place):
    file = place.root / "stages/train/body.py"
    file.write_text(file.read_text() + "\n# a remark for the next reader\n")
    assert place.repro_as_planned() == set()


def test_a_behaviour_edit_reruns_what_reaches_it(place: Place):
    place.edit("stages/evaluate/metrics/exact_match.py", "reference.strip()", "reference.strip().strip()")
    assert place.reasons("evaluate-one") == ["code of stages.evaluate.metrics.exact_match changed"]
    assert place.repro_as_planned() == {"evaluate-one", "evaluate-two"}


def test_a_new_member_of_a_family_reruns_nothing(place: Place):
    text = (place.root / "stages/tokenize/masks/full.py").read_text().replace('"full"', '"other"').replace("Full", "Other")
    place.write("stages/tokenize/masks/other.py", text)
    place.edit("stages/tokenize/masks/__init__.py", "import Full\n", "import Full\nfrom stages.tokenize.masks.other import Other\n")
    place.edit("stages/tokenize/masks/__init__.py", "Delimited | Full", "Delimited | Full | Other")
    assert place.repro_as_planned() == set()


@pytest.mark.long
def test_a_new_spec_shares_data_and_tokens_and_needs_a_compile(place: Place):
    place.write("specs/three.toml", spec("three", "b", "a"))
    refused = place.run("dvc", "repro", check=False)
    assert refused.returncode != 0 and "run: engine compile" in refused.stderr
    place.run("engine", "compile")
    assert place.repro_as_planned() == {"mix-three", "train-three", "predict-three", "evaluate-three", "score-three"}


def test_a_resource_reruns_nothing(place: Place):
    place.edit("specs/parts/common.toml", "threads = 1", "threads = 2")
    assert place.repro_as_planned() == set()


def test_edits_of_what_starts_logs_and_watches_steps_rerun_nothing(place: Place):
    watching = [path for path in (place.root / "stages").rglob("*.py") if OBSERVES in path.read_bytes()]
    assert len(watching) > 10
    for path in watching:
        path.write_text(path.read_text() + "\nANOTHER = 1\n")
    assert set(place.plan().values()) == {"keep"}
    place.edit("stages/train/loop/loss.py", "import torch\n", "import torch\n\nANOTHER = 1\n")
    assert {name for name, action in place.plan().items() if action == "run"} - {"resolve"} == {"train-one", "train-two"}


def test_new_rows_rerun_their_task_and_move_no_row_between_splits(place: Place):
    before = {name: (place.root / f"artifacts/split-a/{name}.jsonl").read_text().splitlines() for name in ("train", "validation", "test")}
    with (place.root / "data/a.jsonl").open("a") as file:
        file.write('{"word": "brand new"}\n')
    assert place.reasons("generate-a") == ["input data/a.jsonl changed"]
    ran = place.repro_as_planned("mix-one", "mix-two")
    assert {"generate-a", "split-a"} <= ran and not ran & {"generate-b", "split-b", "initialize-toy"}
    for name, rows in before.items():
        assert set(rows) <= set((place.root / f"artifacts/split-a/{name}.jsonl").read_text().splitlines())


def test_an_experiment_from_the_command_line(place: Place):
    appended = "specs/one.toml:+training.learning_rate=0.005"  # the part gives it; the spec itself does not yet
    done = place.run("dvc", "exp", "run", "--set-param", "specs/one.toml:experiment.seed=5", "--set-param", appended, "train-one")
    ran = {name for name, action in actions(done.stdout + done.stderr).items() if action == "run"}
    assert {"train-one"} <= ran - {"resolve"} <= {"mix-one", "train-one"}
    params = yaml.safe_load((place.root / "params.yaml").read_text())
    assert params["train-one"]["seed"] == params["mix-one"]["seed"] == 5 and params["train-one"]["learning_rate"] == 0.005
    assert params["train-two"]["seed"] == 1
    assert {name for name, action in place.plan().items() if action != "keep"} == {"predict-one", "evaluate-one", "score-one"}
    shown = place.run("dvc", "exp", "show", "--csv").stdout
    assert "train-one.seed" in shown.splitlines()[0] or "one" in shown.splitlines()[0], shown


def test_a_step_that_is_deleted_is_restored(place: Place):
    shutil.rmtree(place.root / "artifacts/train-two")
    assert place.plan()["train-two"] == "restore"
    assert place.repro_as_planned() == set()
    assert (place.root / "artifacts/train-two/adapter_model.safetensors").exists()


def test_an_edit_of_a_generated_file_is_named_and_neither_used_nor_wiped(place: Place):
    place.edit("params.yaml", "r: 2", "r: 7")
    edited = (place.root / "params.yaml").read_text()
    for command in (("dvc", "repro"), ("engine", "build"), ("engine", "compile")):
        refused = place.run(*command, check=False)
        assert (
            refused.returncode != 0 and "params.yaml is generated, but was edited by hand" in refused.stderr and "r: 7" in refused.stderr
        ), refused.stderr
        assert (place.root / "params.yaml").read_text() == edited
    place.run("engine", "compile", "--force")
    assert place.repro_as_planned() == set()
    place.edit("dvc.yaml", "desc: Adapter of one.", "desc: My adapter.")
    assert "dvc.yaml is generated, but was edited by hand" in place.run("engine", "compile", check=False).stderr


@pytest.mark.long
def test_a_part_outside_the_specs_folder_is_watched(place: Place):
    (place.root / "specs/parts/common.toml").rename(place.root / "common.toml")
    for name in ("one", "two"):
        place.edit(f"specs/{name}.toml", "parts/common.toml", "../common.toml")
    place.run("engine", "compile")
    assert place.repro_as_planned() == set()
    place.edit("common.toml", "Say {{ word }}:", "Tell {{ word }}:")
    assert place.plan()["generate-a"] == "run"
    done = place.run("dvc", "repro", "generate-a")
    assert actions(done.stdout + done.stderr)["generate-a"] == "run"
