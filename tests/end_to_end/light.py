"""A workspace whose light steps (generate, split, tokenize, mix) need no torch: for tests that build hundreds of times."""

import json
import shutil

from tests.end_to_end.conftest import Place

TARGETS = ("mix-one", "mix-two")

PART = """
[model]
path = "model"
name = "toy"

[tasks.a]
source = { kind = "jsonl", path = "data/a.jsonl" }
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
max_new_tokens = 4
seed = 0

[tasks.b]
source = { kind = "jsonl", path = "data/b.jsonl" }
prompts = ["Double {{ word }}:"]
teacher = { kind = "gold", column = "double" }
max_new_tokens = 4

[training]
method = "lora"
epochs = 1
"""


def spec(name: str, *tasks: str) -> str:
    return f'extends = ["parts/common.toml"]\n\n[experiment]\nname = "{name}"\nseed = 0\n\n[mixture]\ntasks = {json.dumps(list(tasks))}\n'


def lighten(place: Place) -> Place:
    """Turn a built workspace into one that starts from the model it made; nothing of it is built yet."""
    shutil.copytree(place.root / "artifacts/initialize-toy", place.root / "model")
    for folder in ("artifacts", "metrics", "plots", ".dvc/cache", "specs"):
        shutil.rmtree(place.root / folder, ignore_errors=True)
    (place.root / "dvc.lock").unlink(missing_ok=True)
    place.write("specs/parts/common.toml", PART)
    place.write("specs/one.toml", spec("one", "a"))
    place.write("specs/two.toml", spec("two", "a", "b"))
    place.run("engine", "compile")
    place.commit("light")
    return place
