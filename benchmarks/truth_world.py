"""A small workspace as a value: what its specs, rows and code say, how that is written to disk, and what each step truly reads.

Nothing here asks the engine: the truth about a step is stated by hand, so that a wrong identity or wiring shows.
"""

import ast
import json
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

TASK_NAMES = ("alpha", "beta", "gamma", "delta")
SPEC_NAMES = ("one", "two", "three", "four", "five", "six")
PROMPTS = ("Say {{ word }} {{ extra }}:", "Tell {{ word }} {{ extra }}:", "Repeat {{ word }} {{ extra }}:")
MODEL_FILES = ("model/tokenizer.json", "model/tokenizer_config.json")

# Which modules a step of each kind runs whatever its recipe says, read off their import statements by hand.
COMMON_TEXT = ("stages/rows/jsonl.py", "stages/rows/strict_json.py", "stages/process/progress.py", "stages/process/job.py")
KIND_MODULES: dict[str, tuple[str, ...]] = {
    "generate": (
        *COMMON_TEXT,
        "stages/process/hashing.py",
        "stages/rows/rows.py",
        "stages/rows/splits.py",
        "stages/rows/templates.py",
        "stages/rows/text.py",
        "stages/generate/body.py",
        "stages/generate/cleaner.py",
        "stages/generate/cleaning/rule.py",
        "stages/generate/prompting.py",
        "stages/generate/prompts.py",
        "stages/generate/question.py",
        "stages/generate/selection.py",
        "stages/generate/selecting.py",
        "stages/generate/sources/jsonl.py",
        "stages/generate/subjects.py",
        "stages/generate/teachers/gold.py",
    ),
    "split": (*COMMON_TEXT, "stages/process/hashing.py", "stages/rows/splits.py", "stages/split/body.py"),
    "tokenize": (
        *COMMON_TEXT,
        "stages/process/read_ahead.py",
        "stages/tokens/encoder.py",
        "stages/tokens/encoding.py",
        "stages/chat/formats/plain.py",
        "stages/tokens/losslessness.py",
        "stages/rows/rows.py",
        "stages/rows/text.py",
        "stages/tokens/python_tokenizers.py",
        "stages/tokens/files.py",
        "stages/rows/turns.py",
        "stages/tokenize/batch.py",
        "stages/tokenize/body.py",
        "stages/tokenize/counts.py",
        "stages/tokenize/lengths.py",
        "stages/tokenize/tokenization.py",
    ),
    "mix": ("stages/process/hashing.py", "stages/process/job.py", "stages/tokens/files.py", "stages/mix/body.py"),
}

# Behaviour edits: a replacement that changes results, or None for a new name at the end that changes none.
BEHAVIOURS: dict[str, tuple[str, str] | None] = {
    "stages/rows/text.py": None,
    "stages/process/hashing.py": None,
    "stages/tokens/files.py": None,
    "stages/rows/templates.py": None,
    "stages/generate/teachers/gold.py": None,
    "stages/tokenize/masks/full.py": None,
    "stages/tokens/encoder.py": None,
    "stages/predict/body.py": None,
    "stages/generate/body.py": (
        "self.parameters.answer_prefix + completion",
        'self.parameters.answer_prefix + completion + " again" * {n}',
    ),
    "stages/mix/body.py": ('generator("epoch", self.parameters.seed, epoch', 'generator("epoch", self.parameters.seed, epoch + {n}'),
    "stages/mix/samplers/equal.py": ("max(size.rows for size in tasks.values())", "max(size.rows for size in tasks.values()) + {n}"),
}
COMMENTED = ("stages/split/body.py", "stages/rows/jsonl.py", "stages/train/body.py", "engine/cli/render.py", *BEHAVIOURS)
SAMPLERS = "stages/mix/samplers/__init__.py"

MEMBER = '''"""One more way to share, number {n}."""

from collections.abc import Mapping
from typing import Literal

from stages.mix.samplers.sizes import Phase, Shares, Size


class Extra{n}(Shares):
    """Every row of every task, and {n} more."""

    kind: Literal["extra{n}"] = "extra{n}"

    def rows_per_epoch(self, tasks: Mapping[str, Size]) -> Phase:
        """How many rows each task gives to an epoch, before caps."""
        return {{name: size.rows + {n} for name, size in tasks.items()}}
'''


@dataclass
class Task:
    """One task; numbers are kept as they are written in TOML, because `1`, `1.0` and `true` are not the same text."""

    prompt: int = 0
    prefix: str = ""
    limit: str = "1000"
    validation: str = "0.1"
    test: str = "0.2"
    seed: str = "0"
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Spec:
    """One spec: a mixture of tasks."""

    tasks: list[str]
    sampler: str = '"proportional"'
    epochs: str = "1"
    seed: str = "0"


@dataclass
class World:
    """Everything that a user of the workspace edits."""

    tasks: dict[str, Task]
    specs: dict[str, Spec]
    mask: str = "completion"
    max_length: str = "128"
    threads: int = 1
    learning_rate: str = "1e-3"
    behaviours: dict[str, int] = field(default_factory=dict)
    comments: dict[str, int] = field(default_factory=dict)
    members: int = 0
    lock_remark: int = 0

    @classmethod
    def drawn(cls, draw: random.Random) -> "World":
        """A random DAG: 2-4 tasks, 2-4 specs, each over some of the tasks."""
        tasks = {
            name: Task(rows=[{"word": f"{name}{n}", "extra": n % 3} for n in range(draw.randint(30, 50))])
            for name in TASK_NAMES[: draw.randint(2, 4)]
        }
        names = SPEC_NAMES[: draw.randint(2, 4)]
        return cls(tasks, {name: Spec(draw.sample(list(tasks), draw.randint(1, min(3, len(tasks)))), draw_sampler(draw)) for name in names})

    @property
    def targets(self) -> list[str]:
        return [f"mix-{name}" for name in self.specs]

    @property
    def wiring(self) -> dict[str, set[str]]:
        return {name: set(spec.tasks) for name, spec in self.specs.items()}

    @property
    def valid(self) -> bool:
        """Whether every number has a type that its field takes: whole numbers for most, any number for shares."""
        whole = [value for spec in self.specs.values() for value in (spec.seed, spec.epochs)]
        whole += [self.max_length] + [value for task in self.tasks.values() for value in (task.seed, task.limit)]
        shares = [value for task in self.tasks.values() for value in (task.validation, task.test)]
        return all(type(literal(v)) is int for v in whole) and all(type(literal(v)) in (int, float) for v in shares)

    def files(self) -> Iterator[tuple[str, str]]:
        """Every file that this says something about, with its text."""
        yield "specs/parts/common.toml", self._common()
        for name, spec in self.specs.items():
            yield f"specs/{name}.toml", _spec_text(name, spec)
        for name, task in self.tasks.items():
            yield f"data/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in task.rows)
        for path in dict.fromkeys((*COMMENTED, *BEHAVIOURS)):
            yield path, self._code(path)
        yield SAMPLERS, self._family()
        for n in range(1, self.members + 1):
            yield f"stages/mix/samplers/extra{n}.py", MEMBER.format(n=n)
        lock = original("requirements.lock")
        yield "requirements.lock", lock + f"# remark {self.lock_remark}\n" * bool(self.lock_remark)

    def write(self, root: Path) -> None:
        """Make the workspace say this; files that say it already stay untouched."""
        wanted = dict(self.files())
        for path in [*(root / "specs").glob("*.toml"), *(root / "stages/mix/samplers").glob("extra*.py")]:
            if path.relative_to(root).as_posix() not in wanted:
                path.unlink()
        for name, text in wanted.items():
            path = root / name
            if not path.exists() or path.read_text("utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")

    def _common(self) -> str:
        lines = ["[model]", 'path = "model"', 'name = "toy"', ""]
        for name, task in self.tasks.items():
            lines += [
                f"[tasks.{name}]",
                f'source = {{ kind = "jsonl", path = "data/{name}.jsonl", limit = {task.limit} }}',
                f"prompts = {json.dumps([PROMPTS[task.prompt]])}",
                'teacher = { kind = "gold", column = "word" }',
                f"answer_prefix = {json.dumps(task.prefix)}",
                f"split = {{ validation = {task.validation}, test = {task.test}, seed = {task.seed} }}",
                "",
            ]
        lines += ["[tokenization]", f'mask = "{self.mask}"', f"max_length = {self.max_length}", ""]
        lines += [
            "[training]",
            'method = "lora"',
            f"learning_rate = {self.learning_rate}",
            "",
            "[resources]",
            f"threads = {self.threads}",
            "",
        ]
        return "\n".join(lines)

    def _code(self, path: str) -> str:
        text = original(path)
        if n := self.behaviours.get(path):
            change = BEHAVIOURS[path]
            assert change is None or change[0] in text, f"{path} no longer holds {change}"
            text = text.replace(change[0], change[1].format(n=n)) if change else text + f"\n_EDIT = {n}\n"
        n = self.comments.get(path, 0)
        return text + f"\n# remark {n}\n" if n % 2 else text.replace('"""', f'"""Remark {n}. ', 1) if n else text

    def _family(self) -> str:
        text = original(SAMPLERS)
        for n in range(1, self.members + 1):
            text = text.replace("import Equal\n", f"import Equal\nfrom stages.mix.samplers.extra{n} import Extra{n}\n")
            text = text.replace("Annotated[Curriculum", f"Annotated[Extra{n} | Curriculum")
        return text

    def truths(self) -> dict[str, tuple[Any, tuple[str, ...]]]:
        """For each step that the targets need, producers first: what decides it besides files, and the files whose bytes do."""
        found: dict[str, tuple[Any, tuple[str, ...]]] = {}
        for name in dict.fromkeys(task for spec in self.specs.values() for task in spec.tasks):
            found |= self._task_truths(name, self.tasks[name])
        for name, spec in self.specs.items():
            sampler = literal(spec.sampler)
            member = sampler if isinstance(sampler, str) else sampler["kind"]
            weights = {} if isinstance(sampler, str) else {task: float(w) for task, w in sampler["weights"].items()}
            own = [member, weights, literal(spec.epochs), literal(spec.seed), sorted(spec.tasks)]
            files = tuple(f"artifacts/tokenize-{task}-toy/train.safetensors" for task in sorted(spec.tasks))
            found[f"mix-{name}"] = ([own, self._behaviour("mix", f"stages/mix/samplers/{member}.py")], files)
        return found

    def _task_truths(self, name: str, task: Task) -> dict[str, tuple[Any, tuple[str, ...]]]:
        rows = [PROMPTS[task.prompt], task.prefix, literal(task.limit)]
        shares = [float(literal(task.validation)), float(literal(task.test)), literal(task.seed)]
        tokens = [self.mask, literal(self.max_length)]
        parts = tuple(f"artifacts/split-{name}/{part}.jsonl" for part in ("train", "validation"))
        return {
            f"generate-{name}": ([rows, self._behaviour("generate")], (f"data/{name}.jsonl",)),
            f"split-{name}": ([shares, self._behaviour("split")], (f"artifacts/generate-{name}/rows.jsonl",)),
            f"tokenize-{name}-toy": (
                [tokens, self._behaviour("tokenize", f"stages/tokenize/masks/{self.mask}.py")],
                (*parts, *MODEL_FILES),
            ),
        }

    def _behaviour(self, kind: str, *members: str) -> list[str]:
        """What the modules of a step do: their trees without comments and without the module's docstring."""
        written = dict(self.files())
        trees = []
        for path in (*KIND_MODULES[kind], *members):
            trees.append(path + _tree(written.get(path) or original(path)))
        return trees


@cache
def original(path: str) -> str:
    """A file of this repository as it was when it was first read: the repository may be edited meanwhile."""
    return (ROOT / path).read_text("utf-8")


@cache
def _tree(text: str) -> str:
    tree = ast.parse(text)
    tree.body = tree.body[1:]  # every module of ours begins with a docstring
    return ast.dump(tree)


def literal(text: str) -> Any:
    """The value that TOML gives to TEXT."""
    return tomllib.loads(f"value = {text}")["value"]


def draw_sampler(draw: random.Random) -> str:
    return draw.choice(['"proportional"', '"equal"'])


def _spec_text(name: str, spec: Spec) -> str:
    head: Mapping[str, str] = {"experiment": f'name = "{name}"\nseed = {spec.seed}', "training": f"epochs = {spec.epochs}"}
    mixture = f"tasks = {json.dumps(spec.tasks)}\nsampler = {spec.sampler}"
    sections = "\n\n".join(f"[{key}]\n{text}" for key, text in {**head, "mixture": mixture}.items())
    return f'extends = ["parts/common.toml"]\n\n{sections}\n'
