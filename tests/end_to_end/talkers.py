"""A workspace of small models to talk to: two adapters with a chat format on one base, one of which samples, and a prompt-tuned one."""

import json
import subprocess
from pathlib import Path

from engine.build.driver import dvc_environment
from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import build_recorded
from tests.stages.generate.tiny_models import llama
from tests.support import json_output
from tests.support.warm import warm_python

PART = """
[model]
path = "base"
name = "toy"

[tasks.a]
source = { kind = "jsonl", path = "data/a.jsonl" }
system = "Repeat."
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.1, test = 0.3 }
max_new_tokens = 6

[tokenization.format]
kind = "chat"
template_file = "chat.jinja"

[mixture]
tasks = ["a"]

[training]
steps = 3
global_batch = { rows = 4 }
learning_rate = 0.05

[evaluation]
metrics = ["exact_match"]

[resources]
threads = 1
"""
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LORA = '{ kind = "lora", r = 4, lora_alpha = 64 }'
PROMPT = '{ kind = "prompt_tuning", num_virtual_tokens = 3 }'
SAMPLED = '{ kind = "sample", seed = 3, temperature = 0.8 }'


def spec(name: str, seed: int, method: str, more: str = "") -> str:
    head = f'extends = ["parts/common.toml"]\n[experiment]\nname = "{name}"\nseed = {seed}\n'
    return f"{head}[training]\nmethod = {method}\n{more}"


def make_talkers(root: Path) -> Place:
    """The workspace, built at ROOT."""
    place = Place(root)
    llama(place.root / "base", positions=4096, seed=3)
    place.write("chat.jinja", TEMPLATE)
    place.write("pyproject.toml", '[project]\nname = "w"\nversion = "0"\n')
    place.write("data/a.jsonl", "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(40)))
    place.write("specs/parts/common.toml", PART)
    place.write("specs/red.toml", spec("red", 1, LORA))
    place.write("specs/blue.toml", spec("blue", 2, LORA, f"[evaluation]\ndecoding = {SAMPLED}\n"))
    place.write("specs/prompt.toml", spec("prompt", 3, PROMPT))
    place.git("init", "--quiet")
    place.run("dvc", "init", "--quiet")
    build_recorded(place)
    return place


def rows_of(place, step, task="a"):
    return [json.loads(line) for line in (place.root / f"artifacts/{step}-{task}/test.jsonl").read_text().splitlines()]


def predicted(place, name, task="a"):
    lines = (place.root / f"artifacts/predict-{name}/predictions-{task}.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def piped(place, *arguments, given="", check=True):
    """What `engine ARGUMENTS` prints for the text GIVEN on stdin."""
    command = [warm_python(), "-m", "engine", *arguments]
    done = subprocess.run(command, cwd=place.root, env=dvc_environment(), input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    json_output.check(arguments, done.stdout)
    return done
