"""Compiling the specs that were edited gives what compiling all gives, whatever was edited; compared over random edits."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.identity.text import resources_text
from engine.plan import compiled_memo
from engine.plan.compiled_memo import CachedStep
from engine.plan.cost_memo import costs_of
from engine.plan.project import Project

COMMON = """
[model]
name = "toy"
architecture = { kind = "llama", hidden_size = 16, layers = 1, heads = 2, max_length = 64 }
tokenizer = { vocab_size = 300, tasks = ["a"] }

[training]
method = "full"
steps = 2
global_batch = { rows = 4 }
learning_rate = 1e-3

[evaluation]
metrics = ["exact_match"]
rows = 4
"""

TASKS = """
[tasks.a]
source = { kind = "jsonl", path = "data/a.jsonl" }
prompts = ["Say {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.1, test = 0.2 }
max_new_tokens = 4

[tasks.b]
source = { kind = "jsonl", path = "data/b.jsonl" }
prompts = ["Double {{ word }}:"]
teacher = { kind = "gold", column = "word" }
split = { validation = 0.1, test = 0.2 }
max_new_tokens = 4
"""

SPEC = """extends = ["parts/common.toml", "parts/tasks.toml"]

[experiment]
name = "{name}"
seed = {seed}

[mixture]
tasks = {tasks}
{more}
"""
NAMES = ("ant", "bee", "cow", "dog", "eel", "fox", "gnu")


def write(root: Path, name: str, seed: int = 1, tasks: str = '["a"]', more: str = "") -> None:
    (root / f"specs/{name}.toml").write_text(SPEC.format(name=name, seed=seed, tasks=tasks, more=more))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of seven experiments: three stand alone, two start from another's model, two compare themselves with others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Whatever a test writes counts as written before this process started to read.
    monkeypatch.setattr(compiled_memo, "_STARTED", time.time_ns() + 3_600 * 10**9)
    root = tmp_path / "workspace"
    for folder in ("specs/parts", "data"):
        (root / folder).mkdir(parents=True)
    for task in "ab":
        (root / f"data/{task}.jsonl").write_text('{"word": "w"}\n' * 20)
    (root / "specs/parts/common.toml").write_text(COMMON)
    (root / "specs/parts/tasks.toml").write_text(TASKS)
    for name in ("ant", "cow", "gnu"):
        write(root, name)
    write(root, "bee", more='[model]\nexperiment = "dog"\n[training]\nmethod = { kind = "lora", r = 2 }')
    write(root, "dog", tasks='["a", "b"]')
    write(root, "eel", more='[evaluation]\ncompare = ["ant", "bee"]')
    write(root, "fox", tasks='["b"]', more='[evaluation]\ntasks = ["a"]\ncompare = ["base"]')
    return root


def project(root: Path) -> Project:
    return Project(Workspace.at(root))


def everything(found: Project) -> dict[str, object] | str:
    """All that a compiled workspace is, or the problem with it."""
    try:
        outline = found.outline
    except UserError as error:
        return str(error)
    steps = [
        (step.name, step.kind_name, step.plots, step.description, step.origin, dict(step.inputs), [i.where for i in step.inputs.values()])
        for step in outline.graph
    ]
    values = [(step.parameters, resources_text(step), step.locate(("seed",))) for step in outline.graph]
    costs = vars(costs_of(found, found.plan(), found.store()))
    plain = {key: value for key, value in vars(outline).items() if key != "graph"}
    return plain | {"steps": steps, "values": values, "aliases": dict(outline.graph.aliases), "compiled": found.compiled, "costs": costs}


def fully(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object] | str:
    """What compiling all of the workspace gives, with nothing remembered."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
        shutil.rmtree(tmp_path / "empty", ignore_errors=True)
        return everything(project(root))


def were_cached(found: Project) -> set[str]:
    """The steps that were not compiled."""
    return {step.name for step in found.outline.graph if isinstance(step, CachedStep)}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_only_the_edited_spec_and_those_that_refer_to_it_are_compiled(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert not were_cached(project(root))
    edit(root / "specs/gnu.toml", "seed = 1", "seed = 2")
    found = project(root)
    assert {"train-ant", "train-dog", "train-fox", "generate-a", "evaluate-eel"} <= were_cached(found)
    assert not {"mix-gnu", "train-gnu", "predict-gnu", "evaluate-gnu"} & were_cached(found)
    assert everything(found) == fully(root, monkeypatch, tmp_path)
    edit(root / "specs/dog.toml", "seed = 1", "seed = 2")
    found = project(root)
    # eel compares itself with bee, which starts from dog.
    assert not {"train-dog", "train-bee", "evaluate-bee", "evaluate-eel"} & were_cached(found)
    assert {"train-fox", "train-cow"} <= were_cached(found)
    assert everything(found) == fully(root, monkeypatch, tmp_path)


def test_one_experiment_that_takes_a_shared_step_for_itself_is_refused_as_when_all_are_compiled(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    project(root).outline  # noqa: B018
    write(root, "gnu", more='[tasks.a]\nprompts = ["Other {{ word }}:"]')
    refused = everything(project(root))
    assert isinstance(refused, str) and "two different steps are named 'generate-a'" in refused
    assert refused == fully(root, monkeypatch, tmp_path)


Draw = random.Random


def seed(root: Path, draw: Draw) -> None:
    path = root / f"specs/{draw.choice(NAMES)}.toml"
    path.write_text(path.read_text().replace("seed = ", f"seed = {draw.randrange(1, 9)}"))


def rewritten(root: Path, draw: Draw) -> None:
    """Another spec of this name: other tasks, another model, another method, other comparisons, sometimes a mistake."""
    others = [*NAMES, "base", "nobody"]
    more = draw.choice(
        [
            "",
            f'[model]\nexperiment = "{draw.choice(others)}"',
            f'[model]\nexperiment = "{draw.choice(NAMES)}"\n[training]\nmethod = {{ kind = "lora", r = {draw.randint(1, 40)} }}',
            f'[evaluation]\ncompare = ["{draw.choice(others)}"]',
            f'[evaluation]\ntasks = ["b"]\nheld_out = ["{draw.choice("ab")}"]\ncompare = ["{draw.choice(NAMES)}", "base"]',
            '[training]\nmethod = { kind = "qlora", r = 2 }',
            '[model]\nname = "other"\n[training]\nlearning_rate = 3.0',
            '[tokenization]\nname = "chat"\nmask = "full"\n[resources]\nnumerics = "native"\nthreads = 3',
            '[resources]\nreport_to = ["mlflow"]\ngradient_checkpointing = true',
            "[resources]\ndevice_memory = 0.001",
            '[merge]\n[training]\nmethod = { kind = "lora", r = 1 }',
            '[tasks.a]\nprompts = ["Tell {{ word }}:"]',
            '[tasks.c]\nsource = { kind = "jsonl", path = "data/a.jsonl" }\nprompts = ["C {{ word }}"]\n'
            'teacher = { kind = "gold", column = "word" }\nmax_new_tokens = 2\n[evaluation]\nheld_out = ["c"]',
            "[sweep]\ntraining.learning_rate = [1e-3, 2e-3]",
            "[training]\nsteps = many",
        ]
    )
    write(root, draw.choice(NAMES), draw.randrange(1, 9), draw.choice(['["a"]', '["b"]', '["a", "b"]', '["b", "a"]']), more)


def comment(root: Path, draw: Draw) -> None:
    path = root / f"specs/{draw.choice([*NAMES, 'parts/tasks'])}.toml"
    path.write_text(f"# {draw.random()}\n{path.read_text()}")


def part(root: Path, draw: Draw) -> None:
    (root / "specs/parts/common.toml").write_text(COMMON.replace("steps = 2", f"steps = {draw.randint(1, 9)}"))


def data(root: Path, draw: Draw) -> None:
    path = root / f"data/{draw.choice('ab')}.jsonl"
    path.unlink() if draw.random() < 0.2 and path.exists() else path.write_text('{"word": "w"}\n' * draw.randint(20, 40))


def renamed(root: Path, draw: Draw) -> None:
    path = root / f"specs/{draw.choice(NAMES)}.toml"
    path.write_text(path.read_text().replace('name = "', f'name = "{draw.choice(["", "x"])}', 1))


def added_or_removed(root: Path, draw: Draw) -> None:
    path = root / "specs/hen.toml"
    path.unlink() if path.exists() else write(root, "hen", draw.randrange(1, 9))


EDITS: tuple[Callable[[Path, Draw], None], ...] = (
    seed,
    rewritten,
    rewritten,
    rewritten,
    rewritten,
    comment,
    part,
    data,
    renamed,
    added_or_removed,
)


@pytest.mark.parametrize("start", [1, 2, pytest.param(range(3, 8), marks=pytest.mark.long)])
def test_random_edits_give_what_compiling_all_gives(start: int | range, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    partly = 0
    pristine = shutil.copytree(root, tmp_path / "pristine")
    for number in [start] if isinstance(start, int) else start:
        shutil.rmtree(root)
        shutil.copytree(pristine, root)
        draw = random.Random(number)
        project(root).outline  # noqa: B018
        for _ in range(25):
            before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
            for _ in range(draw.choice([1, 1, 1, 2])):
                draw.choice(EDITS)(root, draw)
            found = project(root)
            given, expected = everything(found), fully(root, monkeypatch, tmp_path)
            assert given == expected
            if isinstance(given, str) and draw.random() < 0.8:
                for path in set(root.rglob("*.*")) - before.keys():
                    path.unlink()
                for path, content in before.items():
                    path.write_bytes(content)
            elif not isinstance(given, str):
                kept = were_cached(found)
                partly += 0 < len(kept) < len(found.graph)
    assert partly >= 3, "hardly an edit was compiled alone: the draws compare nothing"
