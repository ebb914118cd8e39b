"""A fetched adapter loads by itself: by peft, by a pipeline and by `transformers serve`, each with the commands of its card."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from engine.artifacts.cards import CARD
from tests.end_to_end.conftest import Place, address, as_artifact
from tests.stages.fetch import test_fetch_body
from tests.stages.generate.test_serving import wait_for

pytestmark = pytest.mark.slow

ASKED = "Say w3:"
GREEDY = "max_new_tokens=6, do_sample=False"
SAYS = {
    "from peft": f"""
ids = tokenizer("{ASKED}", return_tensors="pt", add_special_tokens=False)["input_ids"]
print(tokenizer.decode(model.generate(input_ids=ids, {GREEDY})[0, ids.shape[1]:], skip_special_tokens=True))
print(model.generation_config.eos_token_id)
""",
    "generate = pipeline": f"""
print(generate("{ASKED}", {GREEDY}, return_full_text=False)[0]["generated_text"])
print(generate.model.generation_config.eos_token_id)
""",
}
REFERENCE = """
import sys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

base, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained(base)
if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
    model.resize_token_embeddings(len(tokenizer))
"""
ADAPTED = """
print("|")
model = PeftModel.from_pretrained(model, adapter)
model.generation_config = GenerationConfig.from_pretrained(adapter)
"""
TOKENS = """
[tokenization]
name = "more"
special_tokens = ["<|x|>", "<|y|>"]
"""


@pytest.fixture(scope="module")
def trained(built: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The built workspace with adapters that say something else than their base: not to be changed."""
    place = built.copy_to(tmp_path_factory.mktemp("loading") / "workspace")
    place.edit("specs/parts/common.toml", "r = 2, lora_alpha = 4", "r = 8, lora_alpha = 16")
    place.edit("specs/parts/common.toml", "steps = 2\n", "steps = 40\n")
    place.edit("specs/parts/common.toml", "learning_rate = 1e-3", "learning_rate = 3e-2")
    place.write("specs/tok.toml", (place.root / "specs/one.toml").read_text().replace('name = "one"', 'name = "tok"') + TOKENS)
    place.run("engine", "build", "train-one", "train-tok")
    place.commit("trained")
    return place


def fetched(place: Place, step: str, folder: Path, *more: str) -> Path:
    digest = address(place.root / f"artifacts/{step}.provenance.json")
    place.run("engine", "adapters", "--fetch", digest[7:19], "--output", str(folder), *more)
    return folder


def said(code: str, folder: Path, *arguments: str, **more: str) -> str:
    """What a Python of its own, without network, says in FOLDER."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "home"), "OMP_NUM_THREADS": "1"} | more
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def by_the_card(folder: Path, start: str, **more: str) -> str:
    """What the adapter says, and its ends, when it is loaded by the card's block of Python that holds START."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    (block,) = [block for block in blocks if start in block]
    return said(block + SAYS[start], folder, **more)


def expected(place: Place, step: str, tmp_path: Path) -> str:
    """What the artifact says on the base that it was trained on; another thing than the base alone."""
    base, adapter = (str(place.root / f"artifacts/{name}") for name in ("initialize-toy", step))
    says = SAYS["from peft"]
    without, with_adapter = said(REFERENCE + says + ADAPTED + says, tmp_path, base, adapter).split("|\n")
    assert with_adapter != without, "else there would be nothing to see"
    return with_adapter


def served(folder: Path) -> str:
    """What `transformers serve`, as the card starts it, answers."""
    assert "```sh\ntransformers serve .\n```" in (folder / CARD).read_text()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", ".", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "home"), "OMP_NUM_THREADS": "1"}
    log = folder.parent / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--device", "cpu"], cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        asked = json.dumps({"model": ".", "prompt": ASKED, "max_tokens": 6, "temperature": 0}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", asked, {"Content-Type": "application/json"})
        return str(json.load(urllib.request.urlopen(request, timeout=120))["choices"][0]["text"])
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("step", ["train-one", pytest.param("train-tok", marks=pytest.mark.long)], ids=["plain", "added tokens"])
def test_an_adapter_and_its_base_load_in_three_ways_wherever_they_are_moved_together(trained: Place, tmp_path: Path, step: str):
    answer = expected(trained, step, tmp_path)
    folder = fetched(trained, step, tmp_path / "out")
    digest = address(trained.root / f"artifacts/{step}.provenance.json")
    assert as_artifact(folder, tmp_path / "artifact") == digest and digest in (folder / CARD).read_text()
    folder = folder.rename(tmp_path / "moved")
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.glob("*.[jm][sd]*"))
    assert by_the_card(folder, "from peft") == answer
    assert by_the_card(folder, "generate = pipeline") == answer
    assert served(folder).strip() == answer.splitlines()[0].strip()


def test_a_base_that_lies_in_a_folder_is_placed_or_named_relative_to_the_adapter(trained: Place, tmp_path: Path):
    place = trained.copy_to(tmp_path / "workspace")
    shutil.copytree(place.root / "artifacts/initialize-toy", tmp_path / "models/toy")
    # No cache holds this folder, which does not say where answers end.
    (tmp_path / "models/toy/generation_config.json").write_text("{}")
    place.edit(
        "specs/parts/common.toml",
        (place.root / "specs/parts/common.toml").read_text().split("\n[tasks.a]")[0],
        f'\n[model]\npath = "{tmp_path}/models/toy"\n',
    )
    place.run("engine", "build", "train-one")
    answer = expected(place, "train-one", tmp_path)
    near = fetched(place, "train-one", tmp_path / "models/adapter", "--base-model", "name")
    assert json.loads((near / "adapter_config.json").read_text())["base_model_name_or_path"] == "../toy"
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    near = tmp_path / "elsewhere/adapter"
    assert str(tmp_path) not in (near / CARD).read_text()
    assert by_the_card(near, "from peft") == by_the_card(near, "generate = pipeline") == answer
    # Nobody has the base any more.
    alone = fetched(place, "train-one", tmp_path / "alone")
    assert json.loads((alone / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert "Set `base_model_name_or_path`" in (alone / CARD).read_text()
    for choice, why in (("place", "nor unchanged in the workspace"), ("name", "was trained on it")):
        wrong = place.run(
            "engine",
            "adapters",
            "--fetch",
            address(place.root / "artifacts/train-one.provenance.json")[7:],
            "--output",
            str(tmp_path / "no"),
            "--base-model",
            choice,
            check=False,
        )
        assert wrong.returncode == 1 and why in wrong.stderr and "hint" in wrong.stderr and not (tmp_path / "no").exists()


@pytest.fixture
def hub(trained: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on loopback that has the tiny model in one revision."""
    files = {path.name: path.read_bytes() for path in (trained.root / "artifacts/initialize-toy").iterdir()}
    monkeypatch.setattr(test_fetch_body, "FILES", files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), test_fetch_body.Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_base_of_the_hub_is_named_with_its_revision_and_placed_where_asked(
    trained: Place, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place, commit = trained.copy_to(tmp_path / "workspace"), test_fetch_body.COMMIT
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    model = f'\n[model]\nid = "me/tiny"\nrevision = "{commit}"\n'
    place.edit("specs/parts/common.toml", (place.root / "specs/parts/common.toml").read_text().split("\n[tasks.a]")[0], model)
    place.run("engine", "build", "fetch-tiny")
    place.run("engine", "build", "train-one")
    answer = expected(place, "train-one", tmp_path)
    folder = fetched(place, "train-one", tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("me/tiny", commit) and not (folder / "base").exists()
    assert "base_model: me/tiny\n" in (folder / CARD).read_text()
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    for start in ("from peft", "generate = pipeline"):
        assert by_the_card(folder, start, **online) == answer, start
    placed = fetched(place, "train-one", tmp_path / "placed", "--base-model", "place")
    assert served(placed).strip() == answer.splitlines()[0].strip()
