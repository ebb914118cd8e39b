"""`engine publish`: a folder or a repository that loads, says where it comes from, and leaves alone what others put there."""

import json
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from engine.build.driver import dvc_environment
from engine.identity.provenance import parse
from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded
from tests.support import hub as hubs

pytestmark = pytest.mark.slow

FULL = """
extends = ["parts/common.toml"]
[experiment]
name = "whole"
seed = 1
[mixture]
tasks = ["a"]
[training]
method = "full"
"""


@pytest.fixture(scope="module")
def made(built, tmp_path_factory) -> Place:
    """The workspace with an experiment that trains a whole model, too."""
    place = built.copy_to(tmp_path_factory.mktemp("publish") / "workspace")
    place.write("specs/whole.toml", FULL)
    build_recorded(place, "evaluate-whole")
    return place


@pytest.fixture
def hub():
    with hubs.running() as started:
        yield started


def publish(place, *arguments, hub=None, token="hf_secret", check=True):
    environment = dvc_environment() | ({"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"} if hub else {})
    environment |= {"HF_HOME": str(place.root / ".hub")}
    command = [sys.executable, "-m", "engine", "publish", *arguments]
    done = subprocess.run(command, cwd=place.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and token not in done.stdout + done.stderr
    return done


def published(place, *arguments, **more):
    return json.loads(publish(place, *arguments, "--json", **more).stdout)


def digest_of(place, step):
    return parse((place.root / f"artifacts/{step}.provenance.json").read_bytes()).digest


def test_a_folder_loads_and_tells_results_data_and_how_to_build_it_again(made, tmp_path):
    target = tmp_path / "one"
    shown = publish(made, "one", "--to", str(target), "--dry-run")
    assert "adapter_model.safetensors" in shown.stdout and "nothing was written" in shown.stderr and not target.exists()
    said = published(made, "one", "--to", str(target))
    assert said["digest"] == digest_of(made, "train-one") and {one["change"] for one in said["files"]} == {"add"}
    assert {one["path"] for one in said["files"]} == {str(p.relative_to(target)) for p in target.rglob("*") if not p.is_dir()}
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=target, check=False).returncode == 0
    assert parse((target / "provenance.json").read_bytes()).digest == said["digest"]
    card = (target / "README.md").read_text()
    commit = made.git("rev-list", "--max-parents=0", "HEAD").strip()
    scores = json.loads((made.root / "artifacts/evaluate-one/scores.json").read_text())["models"]["one"]["a"]["eos_rate"]
    for text in (
        said["digest"],
        f"| a | eos_rate | {scores['value']:.2f} | {scores['low']:.2f} to {scores['high']:.2f} (Clopper-Pearson) | 4 |",
        "| a | jsonl `data/a.jsonl` | gold |",
        "not stated by the source",
        f"Spec `specs/one.toml` at commit `{commit}`",
        "engine verify train-one",
        "--lora-modules one=.",
        "AutoPeftModelForCausalLM",
        "## Prompts",
        "Prompt:\n\n```jinja\nSay {{ word }}:\n```",
    ):
        assert text in card, text
    assert str(made.root) not in "".join(path.read_text() for path in (target / "README.md", target / "provenance.json"))
    code = "from peft import AutoPeftModelForCausalLM as A; print(A.from_pretrained('.').active_adapter)"
    assert subprocess.run([sys.executable, "-c", code], cwd=target, capture_output=True, text=True, check=True).stdout == "default\n"


def test_other_files_of_a_folder_stay_and_somebody_elses_are_not_replaced(made, tmp_path):
    target = tmp_path / "two"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    (target / "README.md").write_text("mine, too")
    refused = publish(made, "two", "--to", str(target), check=False)
    assert refused.returncode == 1 and "has README.md from somebody else" in refused.stderr and "--replace" in refused.stderr
    assert {path.name for path in target.iterdir()} == {"notes.txt", "README.md"}
    publish(made, "two", "--to", str(target), "--replace")
    assert (target / "notes.txt").read_text() == "mine" and "train-two" in (target / "README.md").read_text()
    again = publish(made, "two", "--to", str(target))
    assert "has these files already" in again.stderr
    # Another result in the same place replaces what the first one wrote, without a word.
    changed = {one["path"]: one["change"] for one in published(made, "one", "--to", str(target))["files"]}
    assert changed["README.md"] == changed["adapter_model.safetensors"] == changed["SHA256SUMS"] == "replace"
    assert changed["tokenizer.json"] == "keep" and (target / "notes.txt").read_text() == "mine"


def test_a_model_and_an_adapter_on_it_are_published_and_named_by_specs(made, hub, monkeypatch, tmp_path):
    refused = publish(made, "one", "--to", "me/one", hub=hub, check=False)
    assert refused.returncode == 1 and "is not on the hub: nobody could load the adapter" in refused.stderr and "--base" in refused.stderr
    shown = publish(made, "initialize-toy", "--to", "me/toy", "--dry-run", hub=hub)
    assert "the repository would be made, private" in shown.stderr and not hub.repositories
    base = published(made, "initialize-toy", "--to", "me/toy", hub=hub)
    repository = hub.repositories["me/toy"]
    assert repository.private and repository.head == base["revision"] and ".gitattributes" in repository.files
    assert [message for _, message, _ in repository.commits] == ["initial commit", f"initialize-toy {base['digest'][7:19]}"]
    repository.licence = "apache-2.0"
    one = published(made, "one", "--to", "me/one", "--public", "--base", f"me/toy@{base['revision']}", hub=hub)
    files = hub.repositories["me/one"].files
    assert not hub.repositories["me/one"].private and hub.repositories["me/one"].head == one["revision"]
    config = json.loads(files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("me/toy", base["revision"])
    assert b"base_model: me/toy" in files["README.md"] and b"--lora-modules one=me/one" in files["README.md"]
    assert b"The base `me/toy` has the licence `apache-2.0`" in files["README.md"]
    # peft loads it from the hub, with its base, and it computes what it computes here.
    code = f"""
import sys, torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("me/one", revision="{one["revision"]}").eval()
with torch.no_grad():
    torch.save(model(torch.tensor([[1, 2, 3]])).logits, sys.argv[1])
"""
    environment = dvc_environment() | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], env=environment, capture_output=True, check=True)
    own = AutoModelForCausalLM.from_pretrained(made.root / "artifacts/initialize-toy")
    adapted = PeftModel.from_pretrained(own, made.root / "artifacts/train-one").eval()
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "there"), adapted(torch.tensor([[1, 2, 3]])).logits)
    # The part that was written is a spec's model.
    assert one["part"] == "specs/parts/published/one.toml"
    place = made.copy_to(tmp_path / "other")
    place.write("specs/more.toml", 'extends = ["parts/published/one.toml", "parts/tasks.toml"]\n[experiment]\nname = "more"\n')
    common = (place.root / "specs/parts/common.toml").read_text()
    place.write("specs/parts/tasks.toml", common[common.index("[tasks.a]") : common.index("[tasks.b]")])
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    planned = place.plan("predict-more")
    fetched = [name for name in planned if name.startswith("fetch-")]
    assert len(fetched) == 2, "the base and the adapter"
    place.run("engine", "build", *fetched)
    weights = [place.root / f"artifacts/{name}/adapter_model.safetensors" for name in fetched]
    (found,) = [path for path in weights if path.exists()]
    assert found.read_bytes() == (place.root / "artifacts/train-one/adapter_model.safetensors").read_bytes()


def test_a_repository_keeps_the_files_of_others_and_knows_our_earlier_ones(made, hub):
    repository = hub.add("me/whole", {"README.md": b"mine", "LICENSE": b"mine"})
    refused = publish(made, "whole", "--to", "me/whole", hub=hub, check=False)
    assert refused.returncode == 1 and "me/whole has README.md from somebody else" in refused.stderr and len(repository.commits) == 1
    first = published(made, "whole", "--to", "me/whole", "--replace", hub=hub)
    assert repository.files["LICENSE"] == b"mine" and b"train-whole" in repository.files["README.md"]
    assert b"vllm serve me/whole" in repository.files["README.md"]
    again = published(made, "whole", "--to", "me/whole", hub=hub)
    assert again["revision"] == first["revision"] and {one["change"] for one in again["files"]} == {"keep"}
    repository.commit({**repository.files, "more.txt": b"theirs"}, "by somebody")
    published(made, "two", "--to", "me/whole", "--base", f"me/toy@{'a' * 40}", hub=hub)
    assert repository.files["more.txt"] == b"theirs" and repository.files["LICENSE"] == b"mine", "no file is deleted or touched"
    part = (made.root / "specs/parts/published/whole.toml").read_text()
    assert f'id = "me/whole"\nrevision = "{first["revision"]}"' in part


def test_what_cannot_be_published_is_told(made, hub, tmp_path):
    for arguments, more, messages in (
        (["onee", "--to", str(tmp_path / "x")], {}, ["unknown experiment, step or content address: onee", "did you mean 'one'?"]),
        (["one", "--to", str(tmp_path / "x"), "--public"], {}, ["--public is for repositories of the hub"]),
        (["one", "--to", "me/x", "--base", "me/toy@main"], {"hub": hub}, ["--base must be USER/NAME@COMMIT"]),
        (["whole", "--to", "me/x"], {"hub": hub, "token": "hf_wrong"}, ["the hub refuses me/x (status 401)", "HF_TOKEN"]),
    ):
        refused = publish(made, *arguments, check=False, **more)
        assert refused.returncode == 1, refused.stdout
        assert all(message in refused.stderr for message in messages), refused.stderr
    assert not hub.repositories and not (tmp_path / "x").exists()
