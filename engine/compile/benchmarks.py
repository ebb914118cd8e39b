"""The step that lets an experiment's model take tasks of lm-evaluation-harness, and the check that there are such tasks."""

import re
from collections.abc import Iterable, Iterator
from importlib import metadata, util
from pathlib import Path

from engine.compile.compilation import Compilation, locate_below, narrow
from engine.compile.evaluation import Subject
from engine.core import memo
from engine.core.errors import Problem, did_you_mean
from engine.core.graph import Input, Step
from engine.spec.load import Spec
from stages import benchmark

PACKAGE = "lm-eval"
_LINE = re.compile(rb"""^[ \t-]*["']?(?:task|group|tag)["']?:(.*)|^[ \t]*- (.*)""", re.MULTILINE)
_WORD = re.compile(rb"""[^\s,"'\[\]{}#]+""")
"""What a definition is found by: its task, group or tag, or the members of a list of them; read as text, since that is fast."""


def add_benchmarks(c: Compilation, subject: Subject) -> Step | None:
    """Add the step in which the model of SUBJECT takes the benchmarks of its spec, where it names any."""
    spec = subject.spec
    section = spec.experiment.benchmarks
    if section is None:
        return None
    reads = (
        {"model": subject.base.weights, "adapter": subject.trained.output()}
        if subject.makes_adapter
        else {"model": subject.trained.output()}
    )
    if section.folder:
        reads["tasks"] = Input(section.folder, where=spec.where("benchmarks", "folder"))
    resources = spec.experiment.resources
    parameters = narrow(benchmark.Parameters, section, batch_rows=resources.evaluation_batch, threads=resources.threads)
    description = f"Benchmarks of {subject.stem}."
    where = spec.where("benchmarks")
    return c.add(
        Step(f"benchmark-{subject.stem}", benchmark.KIND, parameters, reads, description, where, locate_below(spec, ("benchmarks",))),
        spec,
    )


def benchmark_problems(specs: Iterable[Spec], root: Path) -> list[Problem]:
    """The benchmarks of SPECS that nobody defines; found before a model is trained for hours."""
    return [problem for spec in specs for problem in _problems(spec, root)]


def _problems(spec: Spec, root: Path) -> Iterator[Problem]:
    section = spec.experiment.benchmarks
    if section is None:
        return
    own = _names(root / section.folder) if section.folder else set()
    unknown = [(index, name) for index, name in enumerate(section.tasks) if name not in own]
    if unknown and (published := _published()) is not None:
        for index, name in unknown:
            if name not in published and not _mentioned(name):
                where = spec.where("benchmarks", "tasks", index)
                yield Problem(f"lm-evaluation-harness has no task '{name}'", where, did_you_mean(name, own or published))


def _folder() -> Path | None:
    """Where the installed package keeps its definitions; None where it is not installed."""
    found = util.find_spec("lm_eval")
    return Path(found.submodule_search_locations[0]) / "tasks" if found and found.submodule_search_locations else None


def _mentioned(name: str) -> bool:
    """Whether any published definition holds NAME: a few give names in ways that are not looked for, and none may be refused wrongly."""
    folder = _folder()
    return folder is not None and any(name.encode() in path.read_bytes() for path in folder.rglob("*yaml") if path.is_file())


def _published() -> set[str] | None:
    """The names that the installed package defines; None where it is not installed, which is said of the step's versions."""
    folder = _folder()
    if folder is None:
        return None
    # The reader of definitions is part of what was read.
    by = [metadata.version(PACKAGE), memo.stamp(Path(__file__).stat())]
    remembered = memo.memo_path(folder, "benchmarks")
    known = memo.load(remembered)
    if known and known.get("by") == by:
        return set(known["names"])
    names = _names(folder)
    memo.save(remembered, {"by": by, "names": sorted(names)})
    return names


def _names(folder: Path) -> set[str]:
    """Every name that a definition below FOLDER gives; some are names of other things, which does no harm."""
    names: set[str] = set()
    # Some definitions are parts that others include, in files such as `_template_yaml`.
    for path in sorted(folder.rglob("*yaml")):
        if path.is_file():
            names |= {
                word.decode("utf-8", "replace") for pair in _LINE.findall(path.read_bytes()) for word in _WORD.findall(b" ".join(pair))
            }
    return names
