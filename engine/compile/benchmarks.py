"""The step that evaluates a model on tasks of lm-evaluation-harness, and the check that these tasks exist."""

import re
from collections.abc import Iterable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from engine.compile.compilation import Compilation, Subject, locate_below, narrow
from engine.core import memo
from engine.core.errors import Problem, did_you_mean
from engine.core.graph import Input, Step
from stages import benchmark

if TYPE_CHECKING:
    from engine.spec.sections import Spec

PACKAGE = "lm-eval"
_LINE = re.compile(rb"""^[ \t-]*["']?(?:task|group|tag)["']?:(.*)|^[ \t]*- (.*)""", re.MULTILINE)
_WORD = re.compile(rb"""[^\s,"'\[\]{}#]+""")
"""Match the names in a task definition (YAML): task, group, tag, and the members of lists; matching text is faster than parsing."""


def add_benchmarks(c: Compilation, subject: Subject) -> Step | None:
    """Add the step that runs the benchmarks of SUBJECT's spec on its model; None if the spec has no `[benchmarks]`."""
    spec = subject.spec
    section = spec.experiment.benchmarks
    if section is None:
        return None
    reads = {role: item for role, item in subject.reads().items() if role != "vocabulary"}
    if section.folder:
        reads["tasks"] = Input(section.folder, where=spec.where("benchmarks", "folder"))
    resources = spec.experiment.resources
    parameters = narrow(benchmark.Parameters, section, batch_rows=resources.evaluation_batch, threads=resources.threads)
    description = f"Benchmark results of {subject.stem}."
    where = spec.where("benchmarks")
    return c.add(
        Step(f"benchmark-{subject.stem}", benchmark.KIND, parameters, reads, description, where, locate_below(spec, ("benchmarks",))),
        spec,
    )


def benchmark_problems(specs: "Iterable[Spec]", root: Path) -> list[Problem]:
    """A problem for each benchmark of SPECS that is not defined, so that it is found before any training."""
    return [problem for spec in specs for problem in _problems(spec, root)]


def _problems(spec: "Spec", root: Path) -> Iterator[Problem]:
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
    """The folder with the definitions of the installed package; None if it is not installed."""
    found = util.find_spec("lm_eval")
    return Path(found.submodule_search_locations[0]) / "tasks" if found and found.submodule_search_locations else None


def _mentioned(name: str) -> bool:
    """Whether any published definition contains NAME: a few define names in other ways, and none may be rejected by mistake."""
    folder = _folder()
    return folder is not None and any(name.encode() in path.read_bytes() for path in folder.rglob("*yaml") if path.is_file())


def _published() -> set[str] | None:
    """The names that the installed package defines; None if it is not installed, which the check of package versions reports."""
    folder = _folder()
    if folder is None:
        return None
    # The cached names depend on the version of the package and on this module.
    by = [metadata.version(PACKAGE), memo.stamp(Path(__file__).stat())]
    remembered = memo.memo_path(folder, "benchmarks")
    known = memo.load(remembered)
    if known and known.get("by") == by:
        return set(known["names"])
    names = _names(folder)
    memo.save(remembered, {"by": by, "names": sorted(names)})
    return names


def _names(folder: Path) -> set[str]:
    """All names in the definitions below FOLDER; may include names of other things, which is harmless."""
    names: set[str] = set()
    # The suffix has no dot: some definitions include files such as `_template_yaml`.
    for path in sorted(folder.rglob("*yaml")):
        if path.is_file():
            names |= {
                word.decode("utf-8", "replace") for pair in _LINE.findall(path.read_bytes()) for word in _WORD.findall(b" ".join(pair))
            }
    return names
