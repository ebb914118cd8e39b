"""A workspace with its specs loaded: the graph, the identities, what is compiled, and the plan."""

import difflib
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine import dvcfile
from engine.compile import compile_graph, targets
from engine.environment import Environment
from engine.errors import Location, Problem, UserError
from engine.fitting import misfits
from engine.graph import Graph
from engine.hashing import Hashes, memo_path
from engine.identity import Identities, resources_text
from engine.plan import Decision, Plan, make_plan, plan_resolve
from engine.spec.load import Spec, load_specs
from engine.spec.sections import LocalModel
from engine.store import Disk
from engine.workspace import CODE_ROOT, Workspace, select

_WRITTEN = f"{dvcfile.TEMPORARY}/adapterbuild/compiled"


@dataclass(frozen=True)
class Selection:
    """What a verb is about: its title, its specs, and the steps that must exist for it."""

    title: str
    specs: tuple[Spec, ...]
    graph: Graph


@dataclass(frozen=True)
class Project:
    """Everything that the verbs need of one workspace, computed once when asked for."""

    workspace: Workspace

    @property
    def root(self) -> Path:
        return self.workspace.root

    @cached_property
    def specs(self) -> tuple[Spec, ...]:
        """Every spec of the default DAG, in order of name."""
        return load_specs(self.workspace.spec_paths(), self.root)

    @cached_property
    def graph(self) -> Graph:
        """The graph of all specs; raises UserError where a file that a step reads is missing."""
        graph = compile_graph(self.specs)
        problems = [
            Problem(f"there is no {item.path}", item.where, "paths are relative to the workspace")
            for step in graph
            for item in step.inputs.values()
            if item.producer is None and not (self.root / item.path).exists()
        ]
        if problems := problems or self._models_without_config() or misfits(graph, self.root):
            raise UserError(dict.fromkeys(problems))
        return graph

    def _models_without_config(self) -> list[Problem]:
        hint = "a folder in the layout of from_pretrained is expected: config.json, tokenizer.json and safetensors weights"
        return [
            Problem(f"{model.path} holds no config.json, so it is no model", spec.where("model", "path"), hint)
            for spec in self.specs
            if isinstance(model := spec.experiment.model, LocalModel) and not (self.root / model.path / "config.json").exists()
        ]

    def chosen(self, paths: Iterable[Path]) -> tuple[Spec, ...]:
        """The specs that the user named; all of them when none is named."""
        known = self.workspace.spec_paths()
        wanted = {self.workspace.display(path) for path in select(paths, known, self.workspace)}
        return tuple(spec for spec in self.specs if not wanted or spec.path in wanted)

    def select(self, names: Sequence[str]) -> Selection:
        """What the user asked for by specs and names of steps; everything when nothing is named."""
        if not names:
            return Selection("all specs", self.specs, self.graph)
        by_name = {spec.experiment.experiment.name: str(self.root / spec.path) for spec in self.specs}
        names = [by_name.get(name, name) for name in names]
        steps = [name for name in names if name in self.graph]
        specs = self.chosen(Path(name) for name in names if name not in self.graph) if len(steps) < len(names) else ()
        wanted = [*steps, *(name for spec in specs for name in targets(spec))]
        title = ", ".join([*(spec.experiment.experiment.name for spec in specs), *steps])
        return Selection(title, specs, self.graph.needed_for(wanted))

    @cached_property
    def watched(self) -> tuple[str, ...]:
        """What DVC watches for `resolve`: the workspace's folders, and every file that a spec extends elsewhere."""
        folders = self.workspace.watched()
        files = {file for spec in self.specs for file in spec.files}
        return (*folders, *sorted(file for file in files if not any(file == f or file.startswith(f"{f}/") for f in folders)))

    @cached_property
    def environment(self) -> Environment:
        return Environment(self.root)

    @cached_property
    def identities(self) -> dict[str, str]:
        """Every step's identity file, by the step's name."""
        return Identities(CODE_ROOT, self.environment).texts(self.graph)

    @cached_property
    def compiled(self) -> dict[str, str]:
        """What `engine compile` writes: file to text."""
        pipeline = dvcfile.pipeline_text(self.graph, self.watched, always_resolve=not self.workspace.holds_code)
        return {dvcfile.PIPELINE: pipeline, dvcfile.PARAMS: dvcfile.params_text(self.graph)}

    def stale(self) -> dict[str, str]:
        """The compiled files that are not what the specs say, each with the first lines of the difference."""
        found = {}
        for name, text in self.compiled.items():
            path = self.root / name
            old = path.read_text("utf-8") if path.exists() else ""
            if old != text:
                lines = difflib.unified_diff(
                    old.splitlines(), text.splitlines(), f"{name} (on disk)", f"{name} (from the specs)", "", "", 1, ""
                )
                found[name] = "\n".join(list(lines)[:30])
        return found

    def moved_specs(self) -> list[str]:
        """The specs whose steps the compiled files do not show as they are, with a step of each; steps that no spec asks for any more."""
        found: dict[str, None] = {}
        for name, text in self.compiled.items():
            path = self.root / name
            for step in sorted(dvcfile.changed_sections(path.read_text("utf-8") if path.exists() else "", text)):
                found[f"{self.graph[step].origin.file} ({step})" if step in self.graph else f"no spec asks for {step} any more"] = None
        return list(found)

    def write_compiled(self, force: bool = False) -> list[str]:
        """Write the compiled files that are stale, and name them; raises UserError where one was edited by hand, unless FORCE."""
        changed = self.stale()
        if not force:
            self._refuse_edited(changed)
        for name in changed:
            self._write(name)
        return list(changed)

    def _write(self, name: str) -> None:
        """Write a compiled file, and remember that it was us."""
        write_text(self.root / name, self.compiled[name])
        if (self.root / ".dvc").is_dir():
            write_text(self.root / _WRITTEN / name, dvcfile.text_md5(self.compiled[name]))

    def _written_by_us(self, name: str, text: str) -> bool:
        """Whether a compiled file is as we wrote it last, or as git has it; anything else is somebody's edit."""
        memory = self.root / _WRITTEN / name
        if memory.exists() and memory.read_text("utf-8") == dvcfile.text_md5(text):
            return True
        committed = subprocess.run(["git", "show", f"HEAD:./{name}"], cwd=self.root, capture_output=True, check=False)
        return committed.returncode == 0 and committed.stdout == text.encode()

    def _refuse_edited(self, names: Iterable[str]) -> None:
        """Somebody's edit of a generated file is neither used nor wiped."""
        for name in names:
            path = self.root / name
            if path.exists() and not self._written_by_us(name, path.read_text("utf-8")):
                raise UserError(
                    f"{name} was edited by hand; it is generated\n{self.stale()[name]}",
                    Location(name),
                    f"make the edit in the specs; to drop it: git checkout {name}, or engine compile --force",
                )

    def resolve(self) -> None:
        """What DVC's first step does: identities, resources and `params.yaml`; refuses when the set of steps has changed."""
        self._refuse_edited(name for name in self.stale() if name == dvcfile.PARAMS)
        path = self.root / dvcfile.PIPELINE
        if not path.exists() or path.read_text("utf-8") != self.compiled[dvcfile.PIPELINE]:
            raise UserError(
                "the specs give another set or wiring of steps than dvc.yaml\n" + self.stale().get(dvcfile.PIPELINE, ""),
                hint="run: engine compile",
            )
        for folder in (dvcfile.IDENTITIES, dvcfile.RESOURCES):
            for file in (self.root / folder).glob("*.json"):
                if file.stem not in self.graph:
                    file.unlink()
        for step in self.graph:
            write_text(self.root / step.identity, self.identities[step.name])
            write_text(self.root / dvcfile.RESOURCES / f"{step.name}.json", resources_text(step))
        self._write(dvcfile.PARAMS)

    def store(self) -> Disk:
        """The workspace's disk as it is now."""
        return Disk(self.root, Hashes(self.root, memo_path(self.root)))

    def plan(self, graph: Graph | None = None) -> Plan:
        """What `dvc repro` of GRAPH (all when none is given) will do; reads the disk, writes nothing into the workspace."""
        store = self.store()
        plan = make_plan(graph or self.graph, store, self.identities, self.plan_resolve(store))
        store.hashes.save()
        return plan

    def plan_resolve(self, store: Disk) -> Decision:
        """Whether DVC's first step has anything to do."""
        return plan_resolve(
            store.record(dvcfile.RESOLVE),
            {path: store.entry(path) for path in self.watched},
            {path: store.entry(path) for path in (dvcfile.IDENTITIES, dvcfile.RESOURCES, dvcfile.PARAMS)},
            store.holds,
            # Code outside the workspace is not among what DVC watches, and `resolve` always runs there: only what it would write tells.
            all(self._on_disk(step.identity) == self.identities[step.name] for step in self.graph),
        )

    def _on_disk(self, path: str) -> str | None:
        full = self.root / path
        return full.read_text("utf-8") if full.exists() else None


def write_text(path: Path, text: str) -> None:
    """Write a whole file at once, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
