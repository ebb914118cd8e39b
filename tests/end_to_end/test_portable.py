"""The same bytes on machines that differ in cores, threads, hash seed, time zone, language and order of files: a chain of every kind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from stages.kinds import KINDS
from stages.process import numerics
from tests.end_to_end.conftest import ROOT, told
from tests.stages.generate.tiny_models import llama

pytestmark = [pytest.mark.long, pytest.mark.skipif(numerics.obstacle() is not None, reason="needs x86-64 with AVX2")]

PARTS = """
[tasks.said]
source = { kind = "jsonl", path = "data/a.jsonl" }
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.2, test = 0.2 }
max_new_tokens = 4

[tasks.continued]
source = { kind = "jsonl", path = "data/a.jsonl" }
prompts = ["{{ word }}"]
teacher = { kind = "local", path = "models/llama", max_new_tokens = 3, on_cut_off = "keep" }
split = { validation = 0.2, test = 0.2 }
max_new_tokens = 4

[mixture]
tasks = ["said", "continued"]

[evaluation]
metrics = ["exact_match", "perplexity"]

[resources]
threads = THREADS
"""
BASE = """extends = ["parts/common.toml"]
[experiment]
name = "base"
[model]
name = "toy"
architecture = { kind = "falcon", hidden_size = 64, layers = 1, heads = 4, max_length = 64 }
tokenizer = { vocab_size = 300 }
[training]
method = "full"
steps = 4
global_batch = { rows = 16 }
"""
TUNED = """extends = ["parts/common.toml"]
[experiment]
name = "tuned"
[model]
experiment = "base"
[tokenization]
name = "marked"
special_tokens = ["<new>"]
[training]
method = { kind = "METHOD", r = 2 }
steps = 3
global_batch = { rows = 8 }
"""
UNPACKED = """extends = ["parts/common.toml"]
[experiment]
name = "unpacked"
[model]
gguf = "models/tiny.Q8_0.gguf"
rope_scaling = { kind = "yarn", factor = 2.0 }
[training]
method = { kind = "lora", r = 2 }
steps = 2
global_batch = { rows = 8 }
"""
MERGED = (
    TUNED.replace('"tuned"', '"merged"')
    .replace('"METHOD"', '"qlora"')
    .replace('[tokenization]\nname = "marked"\nspecial_tokens = ["<new>"]\n', "")
)
PREFERRED = """extends = ["parts/common.toml"]
[experiment]
name = "preferred"
[model]
experiment = "base"
[tasks.pairs]
source = { kind = "jsonl", path = "data/pairs.jsonl" }
layout = "preference"
split = { validation = 0.2, test = 0.2 }
max_new_tokens = 3
[pairs.sampled]
task = "said"
experiments = ["base"]
samples = 3
scores = [{ metric = "length", weight = -1.0 }]
[tasks.said]
max_new_tokens = 24
[tasks.sampled]
source = { kind = "pairs", pairs = "sampled" }
layout = "preference"
[mixture]
tasks = ["pairs", "sampled"]
[evaluation]
tasks = ["pairs"]
[training]
method = { kind = "lora", r = 2 }
objective = "dpo"
steps = 2
global_batch = { rows = 4 }
"""
DISTILLED = """extends = ["parts/common.toml"]
[experiment]
name = "distilled"
[model]
experiment = "base"
[training]
method = { kind = "lora", r = 2 }
objective = { kind = "distill", teacher = "base", top_k = 8 }
steps = 2
global_batch = { rows = 8 }
"""
EXPORT = '[export]\nrows = 1\nformats = [{ kind = "merged", dtype = "float32" }]\n'
MORE = '[merge]\n[benchmarks]\ntasks = ["which_word"]\nfolder = "own"\n'
TASK = """
task: which_word
dataset_path: json
dataset_kwargs: { data_files: { test: own/words.jsonl } }
test_split: test
output_type: multiple_choice
doc_to_text: "say {{ word }}:"
doc_to_choice: ["red", "blue"]
doc_to_target: label
metric_list: [{ metric: acc, aggregation: mean, higher_is_better: true }]
"""

MACHINES = {
    "one core": (1, (), {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"}),
    "as many threads as there are cores": (2, (), {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}),
    "more threads than cores, each step a process of its own": (
        5,
        ("--no-fork",),
        {"PYTHONHASHSEED": "3", "TZ": "America/New_York", "LANG": "de_DE.UTF-8", "OMP_NUM_THREADS": "3"},
    ),
}


def built(root: Path, threads: int, options: tuple[str, ...], environment: dict[str, str], backwards: bool) -> dict[str, str]:
    """The content address of every step of the chain, its metrics and plots, by name; built with OPTIONS.

    Files are written BACKWARDS, so that folders list them otherwise.
    """
    files = {
        "data/a.jsonl": "".join(json.dumps({"word": f"w{n}"}) + "\n" for n in range(60)),
        "data/pairs.jsonl": "".join(json.dumps({"prompt": f"w{n}", "chosen": f"n{n}", "rejected": f"n{n} n{n}"}) + "\n" for n in range(30)),
        "own/words.jsonl": "".join(json.dumps({"word": f"w{n}", "label": n % 2}) + "\n" for n in range(6)),
        "own/which.yaml": TASK,
        "specs/parts/common.toml": PARTS.replace("THREADS", str(threads)),
        "specs/base.toml": BASE,
        "specs/tuned.toml": TUNED.replace("METHOD", "lora"),
        "specs/merged.toml": MERGED + EXPORT + MORE,
        "specs/preferred.toml": PREFERRED,
        "specs/distilled.toml": DISTILLED,
        "specs/unpacked.toml": UNPACKED,
    }
    for name, text in reversed(files.items()) if backwards else files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    llama(root / "models/llama")
    shutil.copy(ROOT / "tests/behaviours/workspace/models/tiny.Q8_0.gguf", root / "models")
    inherited = {name: value for name, value in dvc_environment().items() if name not in numerics.HANDED_ON}
    more = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(root / "cache"), **environment}
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"], [sys.executable, "-m", "engine", "build", *options]):
        done = subprocess.run(command, cwd=root, env=inherited | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    statements = [told(path) for path in sorted((root / "artifacts").glob("*.provenance.json"))]
    records = [json.loads(path.read_text()) for path in sorted((root / "artifacts").glob("*.run.json"))]
    assert [record["step"] for record in records] == [statement.step for statement in statements]
    assert {record["machine"]["numerics"]["asked"] for record in records} == {"portable"}
    assert {statement.kind for statement in statements} == KINDS.keys() - {"fetch"}
    assert (root / ".dvc/tmp/adapterbuild/fork-server.log").exists() == (not options)
    measured = [path for folder in ("metrics", "plots") for path in (root / folder).iterdir() if path.is_file()]
    return {statement.step: statement.digest for statement in statements} | {path.name: path.read_text() for path in measured}


def test_a_chain_of_every_kind_gives_the_same_bytes_on_every_machine(tmp_path: Path):
    found = {}
    for number, (name, (threads, options, environment)) in enumerate(MACHINES.items()):
        root = tmp_path / str(number)
        root.mkdir()
        found[name] = built(root, threads, options, environment, backwards=number % 2 == 1)
    expected = found.pop("one core")
    for name, addresses in found.items():
        assert addresses == expected, name
