"""A workspace: its specs, graph, identities, compiled files and plan."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.digests import canonical, digest
from engine.core.errors import Location, Problem, UserError
from engine.core.graph import HEADLINES, Graph, Step, measured_by
from engine.core.workspace import CODE_ROOT, Workspace, select
from engine.dvc import dvcfile
from engine.dvc.disk import Disk
from engine.dvc.hashing import Hashes, memo_path
from engine.identity.behaviours import Behaviours
from engine.identity.environment import Environment
from engine.plan.compiled_memo import CachedStep, Outline, SpecName, State, recall_edited, remember, writer
from engine.plan.decide import Decision, Plan, make_plan, plan_resolve
from engine.plan.recompile import Parts, merged, parts_of

if TYPE_CHECKING:
    from engine.compile.compiler import Compiled
    from engine.identity.text import Identities
    from engine.spec.sections import Spec  # imports pydantic, which a plan from the cache does not need


@dataclass(frozen=True)
class Selection:
    """What a command operates on: a title, the names of its experiments, and the graph of the steps they need."""

    title: str
    experiments: tuple[str, ...]
    graph: Graph


_ALONE = 16
"""How many specs are compiled one by one, for steps that a cached plan needs whole, before all are."""


@dataclass
class _Alone:
    """What was compiled without the other specs."""

    parts: Parts | None = None
    asked: set[str] = field(default_factory=set)
    steps: dict[str, Step] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A workspace as the commands see it; each property is computed once, on first access."""

    workspace: Workspace
    pins: Mapping[str, str] | None = None
    """Package versions to plan with in place of those in the lock; None: those in the lock."""

    @property
    def root(self) -> Path:
        return self.workspace.root

    @cached_property
    def specs(self) -> "tuple[Spec, ...]":
        """Every spec of the workspace, sorted by name; raises UserError with all problems of all specs."""
        specs, problems = self._loaded
        if problems:
            raise UserError(problems)
        return specs

    @cached_property
    def _loaded(self) -> "tuple[tuple[Spec, ...], list[Problem]]":
        from engine.spec.load import load_each

        return load_each(self.workspace.spec_paths(), self.root)

    @cached_property
    def outline(self) -> Outline:
        """The steps and their identities: cached as far as specs, code and versions are unchanged, and compiled where they are not."""
        if self.pins is not None:
            return self._compiled_outline()
        found = recall_edited(self._memo, self._state, self._step)
        outline = found[0] if found and not found[1] else (found and self._recompiled_outline(*found)) or self._compiled_outline()
        self.hashes.save()
        return outline

    @property
    def graph(self) -> Graph:
        """The graph of all specs; raises UserError if a file that a step reads is missing."""
        return self.outline.graph

    @property
    def _whole(self) -> Graph:
        """The graph with every step's parameters."""
        return self._compilation[1]

    @cached_property
    def _compilation(self) -> "tuple[Compiled, Graph]":
        from engine.compile.compiler import compile_each

        specs, problems = self._loaded
        compiled = compile_each(specs, whole=not problems, root=self.root)
        if problems := [*problems, *self._problems(specs, compiled)]:
            raise UserError(dict.fromkeys(problems))
        return compiled, self._fitting(compiled)

    def _problems(self, specs: "Sequence[Spec]", compiled: "Compiled") -> list[Problem]:
        """The problems of COMPILED SPECS and of the files that they name."""
        from engine.checks.missing_files import missing_inputs
        from engine.compile.benchmarks import benchmark_problems

        missing = missing_inputs(compiled.steps, self.root)
        unreadable = [] if missing else [*self._models_without_config(specs), *self._broken_template_files(compiled.steps)]
        return [*compiled.problems, *missing, *unreadable, *benchmark_problems(specs, self.root)]

    def _fitting(self, compiled: "Compiled") -> Graph:
        """The graph of COMPILED; raises UserError if a method does not fit its model, or a teacher its student."""
        from engine.checks.existing_adapter import adapter_problems
        from engine.checks.model_fit import misfits
        from engine.checks.teacher_vocabulary import unlike_vocabularies

        graph = compiled.graph()
        if problems := [*misfits(graph, self.root), *adapter_problems(graph, self.root), *unlike_vocabularies(graph, self.root)]:
            raise UserError(problems)
        return graph

    def _broken_template_files(self, steps: Iterable[Step]) -> Iterator[Problem]:
        from engine.spec.references import template_error
        from stages import generate
        from stages.generate.prompts import TemplateFile
        from stages.rows.template_files import read_template

        for step in steps:
            templates = (*step.parameters.prompts, step.parameters.system) if isinstance(step.parameters, generate.Parameters) else ()
            for file in {template.file for template in templates if isinstance(template, TemplateFile)}:
                try:
                    text = read_template(self.root / file, file)
                except UserError as error:
                    yield from error.problems
                else:
                    if why := template_error(text):
                        yield Problem(f"{file} is not a valid Jinja template: {why}", Location(file))
            if given := step.inputs.get("chat_template"):
                try:
                    read_template(self.root / given.path, given.path)
                except UserError as error:
                    yield from error.problems

    def _models_without_config(self, specs: "Iterable[Spec]") -> list[Problem]:
        from engine.spec.models import LocalModel

        hint = "expected a folder in the from_pretrained layout: config.json, tokenizer.json and safetensors weights"
        models = [(spec, spec.experiment.model.path) for spec in specs if isinstance(spec.experiment.model, LocalModel)]
        return [
            Problem(f"not a model folder: {path} has no config.json", spec.where("model", "path"), hint)
            for spec, path in models
            if not (self.root / path / "config.json").exists()
        ]

    @property
    def _memo(self) -> Path:
        return memo_path(self.root, "outline")

    @property
    def _parts_memo(self) -> Path:
        return memo_path(self.root, "parts")

    @cached_property
    def hashes(self) -> Hashes:
        """Hashes of the workspace's files."""
        return Hashes(self.root, memo_path(self.root))

    @cached_property
    def _state(self) -> State:
        return State(self.hashes, CODE_ROOT, self.workspace.spec_paths(), self.environment.version)

    def _compiled_outline(self) -> Outline:
        """Compile the specs, and cache the outline for the next run."""
        compiled, graph = self._compilation
        return self._outline_of(parts_of(self.specs, compiled, self.identities), graph)

    def _recompiled_outline(self, before: Outline, changed: Sequence[str]) -> Outline | None:
        """As `_compiled_outline`, from what was compiled BEFORE some files of specs CHANGED; None if all specs must be compiled."""
        parts = Parts.load(self._parts_memo, [*writer(), before.state])
        if parts is None or not parts.is_worth(affected := parts.affected(changed)):
            return None
        found = self._compiled_alone(parts, affected)
        if found is None or self._problems(*found):
            return None
        specs, compiled = found
        identities = self._identities.texts(self._fitting(compiled))
        both = merged(parts, before.graph, parts_of(specs, compiled, identities), compiled)
        if both is None:
            return None
        self._alone.parts = both[0]
        self._alone.identities.update(identities)
        return self._outline_of(*both)

    def _compiled_alone(self, parts: Parts, experiments: set[str]) -> "tuple[tuple[Spec, ...], Compiled] | None":
        """EXPERIMENTS compiled with those that they look up or leave steps to; None if that is not enough."""
        from engine.compile.compiler import compile_each
        from engine.spec.load import load_each

        while not parts.renamed:
            wanted = {parts.specs[name].path for name in experiments}
            specs, problems = load_each((p for p in self.workspace.spec_paths() if self.workspace.display(p) in wanted), self.root)
            names = {(spec.name, spec.stem, spec.path) for spec in specs}
            if problems or names != {(name, spec.stem, spec.path) for name, spec in parts.specs.items() if spec.path in wanted}:
                return None
            compiled = compile_each(specs, root=self.root)
            if compiled.contributions is None:
                return None
            more = parts.others_needed(compiled.contributions)
            if not more:
                return specs, compiled
            experiments = compiled.contributions.keys() | more
        return None

    @cached_property
    def _alone(self) -> _Alone:
        return _Alone()

    def _step(self, name: str) -> Step:
        """Step NAME with its parameters: of its spec alone, as long as few are asked for."""
        alone = self._alone
        if name in alone.steps:
            return alone.steps[name]
        if "_compilation" not in vars(self) and len(alone.asked) < _ALONE:
            alone.parts = alone.parts or Parts.load(self._parts_memo, [*writer(), self.outline.state])
            if (
                alone.parts
                and not alone.parts.renamed
                and (found := self._compiled_alone(alone.parts, {owner := alone.parts.owners[name]}))
            ):
                alone.asked.add(owner)
                owned = {experiment.name for experiment in found[0]}
                alone.steps |= {step.name: step for step in found[1].steps if alone.parts.owners[step.name] in owned}
                return alone.steps[name]
        return self._whole[name]

    def identity(self, name: str) -> str:
        """The text of the identity file of step NAME."""
        if "identities" in vars(self):
            return self.identities[name]
        if name not in self._alone.identities:
            step = self.graph[name]
            whole = self._step(name) if isinstance(step, CachedStep) else step
            if "_compilation" in vars(self):
                return self.identities[name]
            self._alone.identities[name] = self._identities.text(whole)
        return self._alone.identities[name]

    @cached_property
    def _identities(self) -> "Identities":
        from engine.identity.text import Identities

        return Identities(CODE_ROOT, self.environment)

    def _outline_of(self, parts: Parts, graph: Graph) -> Outline:
        """The outline that PARTS and the steps of GRAPH make; cached for the next run."""
        from engine.checks.existing_adapter import unlike_bases

        packages = dict.fromkeys(package for step in parts.steps.values() for package in step.packages)
        versions = {package: self.environment.version(package) for package in packages}
        unlocked = versions.keys() & self.environment.unlocked.keys()
        files = tuple(dict.fromkeys(file for spec in parts.specs.values() for file in spec.files))
        read = {item.path for step in graph for item in step.inputs.values() if item.producer is None}
        read |= {path for spec in parts.specs.values() for path in spec.configurations}
        state = self._state.of(files, sorted(read), sorted(unlocked))
        loggers: dict[str, Location | None] = {}
        for spec in parts.specs.values():
            loggers = {**spec.loggers, **loggers}
        outline = Outline(
            specs=tuple(SpecName(spec.path, name, spec.targets, spec.stem) for name, spec in parts.specs.items()),
            files=files,
            graph=graph,
            digests={name: step.identity for name, step in parts.steps.items()},
            pipeline=dvcfile.text_md5(dvcfile.joined_pipeline({name: step.stage for name, step in parts.steps.items()})),
            resolved=self._to_resolve(parts),
            state=digest(canonical(state)),
            common=digest(canonical(self._state.common(state))),
            resources={name: step.resources for name, step in parts.steps.items()},
            device_memory={
                graph[training].name: spec.device_memory
                for name, spec in parts.specs.items()
                if spec.device_memory is not None and (training := f"train-{name}") in graph
            },
            warnings=tuple(
                dict.fromkeys((*(one for spec in parts.specs.values() for one in spec.warnings), *unlike_bases(graph, self.root)))
            ),
            loggers=loggers,
            versions=versions,
        )
        if self.pins is None and self._state.settled(state):
            remember(self._memo, outline, state)
            parts.save(self._parts_memo, [*writer(), outline.state])
        return outline

    @staticmethod
    def _to_resolve(parts: Parts) -> dict[str, str]:
        """Expected md5 of each path that `resolve` writes."""
        steps = parts.steps
        return {
            dvcfile.RESOLVED: dvcfile.resolved_entry().md5,
            dvcfile.IDENTITIES: dvcfile.tree_md5({f"{name}.json": step.identity for name, step in steps.items()}),
            dvcfile.RESOURCES: dvcfile.tree_md5({f"{name}.json": step.resources for name, step in steps.items()}),
            dvcfile.PARAMS: dvcfile.text_md5(dvcfile.joined_params({name: step.parameters for name, step in steps.items()})),
        }

    def chosen(self, paths: Iterable[Path]) -> "tuple[Spec, ...]":
        """The specs at PATHS, which may also be names of experiments; all specs if PATHS is empty."""
        wanted = {spec.experiment for spec in self.named(paths)}
        return tuple(spec for spec in self.specs if spec.name in wanted)

    def named(self, paths: Iterable[Path], steps: Iterable[str] = ()) -> tuple[SpecName, ...]:
        """As `chosen`, without loading the specs; the name of a sweep selects all its points. STEPS: more names to suggest for a typo."""
        names = dict.fromkeys(name for spec in self.outline.specs for name in (spec.stem, spec.experiment))
        given = list(paths)
        chosen = {str(path) for path in given} & names.keys()
        files = [path for path in given if str(path) not in chosen]
        wanted = {self.workspace.display(path) for path in select(files, self.workspace, [*names, *steps])}
        return tuple(spec for spec in self.outline.specs if not given or spec.path in wanted or {spec.experiment, spec.stem} & chosen)

    def refuse_sweep(self, name: str) -> None:
        """Raise UserError if NAME is a sweep; for commands that need one of its points."""
        if points := [spec.experiment for spec in self.outline.specs if spec.stem == name != spec.experiment]:
            raise UserError(f"{name} is a sweep of {len(points)} points: name one of them", hint=f"for example: {points[0]}")

    def select(self, names: Sequence[str]) -> Selection:
        """The selection that NAMES of specs, experiments and steps stand for; everything if NAMES is empty."""
        if not names:
            return Selection("all specs", tuple(spec.experiment for spec in self.outline.specs), self.graph)
        experiments = {spec.stem for spec in self.outline.specs}
        steps = [name for name in names if name in self.graph and name not in experiments]
        others = [Path(name) for name in names if name not in steps]
        specs = self.named(others, (step.name for step in self.graph)) if others else ()
        wanted = [*steps, *(name for spec in specs for name in spec.targets)]
        title = ", ".join([*(spec.experiment for spec in specs), *steps])
        return Selection(title, tuple(spec.experiment for spec in specs), self.graph.needed_for(wanted))

    @cached_property
    def environment(self) -> Environment:
        return Environment(self.root, self.pins)

    @cached_property
    def behaviours(self) -> Behaviours:
        """The recorded behaviours: which states of code and versions are known to leave the same bytes."""
        return Behaviours.of(CODE_ROOT)

    @cached_property
    def identities(self) -> dict[str, str]:
        """The text of every step's identity file, by step name."""
        return self._identities.texts(self._whole)

    @cached_property
    def compiled(self) -> dict[str, str]:
        """The files that `engine compile` writes: name to text."""
        return {dvcfile.PIPELINE: dvcfile.pipeline_text(self.graph), dvcfile.PARAMS: dvcfile.params_text(self._whole)}

    @property
    def pipeline_is_stale(self) -> bool:
        """Whether `dvc.yaml` is missing or out of date."""
        path = self.root / dvcfile.PIPELINE
        return not path.exists() or dvcfile.text_md5(path.read_text("utf-8")) != self.outline.pipeline

    def stale(self) -> dict[str, str]:
        """The compiled files that are out of date, each with the first lines of its diff."""
        import difflib

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
        """What is out of date in the compiled files: each changed step with its spec, and each step that is no longer in any spec."""
        found: dict[str, None] = {}
        for name, text in self.compiled.items():
            path = self.root / name
            for step in sorted(dvcfile.changed_sections(path.read_text("utf-8") if path.exists() else "", text)):
                found[f"{self.graph[step].origin.file} ({step})" if step in self.graph else f"{step} (no longer in any spec)"] = None
        return list(found)

    def write_compiled(self, force: bool = False) -> list[str]:
        """Write the compiled files that are out of date; returns their names. Raises UserError if one was edited by hand, unless FORCE."""
        changed = self.stale()
        if not force:
            self._refuse_edited(changed)
        for name in changed:
            self._write(name)
        return list(changed)

    def _write(self, name: str) -> None:
        """Write a compiled file, and record its md5 to detect later edits by hand."""
        write_text(self.root / name, self.compiled[name])
        if (self.root / ".dvc").is_dir():
            write_text(self.root / dvcfile.WRITTEN / name, dvcfile.text_md5(self.compiled[name]))

    def _written_by_us(self, name: str, text: str) -> bool:
        """Whether a compiled file is as last written here or as committed; otherwise it was edited by hand."""
        memory = self.root / dvcfile.WRITTEN / name
        if memory.exists() and memory.read_text("utf-8") == dvcfile.text_md5(text):
            return True
        import subprocess

        def git(*arguments: str) -> bytes | None:
            done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, check=False)
            return None if done.returncode else done.stdout

        # During a merge, git's index holds both sides merged.
        merging = git("rev-parse", "--verify", "--quiet", "MERGE_HEAD") is not None
        return text.encode() in (git("show", f"HEAD:./{name}"), git("show", f":./{name}") if merging else None)

    def _refuse_edited(self, names: Iterable[str]) -> None:
        """Raise UserError if a generated file was edited by hand: the edit is neither used nor overwritten."""
        for name in names:
            path = self.root / name
            if path.exists() and not self._written_by_us(name, path.read_text("utf-8")):
                raise UserError(
                    f"{name} is generated, but was edited by hand\n{self.stale()[name]}",
                    Location(name),
                    f"edit the specs instead; to discard the edit: git checkout {name}, or engine compile --force",
                )

    def resolve(self) -> None:
        """Run DVC's first step: write identities, resources and `params.yaml`; raises UserError if `dvc.yaml` is out of date."""
        self._refuse_edited(name for name in self.stale() if name == dvcfile.PARAMS)
        path = self.root / dvcfile.PIPELINE
        if not path.exists() or path.read_text("utf-8") != self.compiled[dvcfile.PIPELINE]:
            raise UserError(
                "dvc.yaml is out of date: the specs have different steps or wiring\n" + self.stale().get(dvcfile.PIPELINE, ""),
                hint="run: engine compile",
            )
        for folder in (dvcfile.IDENTITIES, dvcfile.RESOURCES):
            for file in (self.root / folder).glob("*.json"):
                if file.stem not in self.graph:
                    file.unlink()
        # DVC shows what is in this folder, and warns if there is none.
        (self.root / HEADLINES).mkdir(parents=True, exist_ok=True)
        for file in (self.root / HEADLINES).glob("*.json"):
            if measured_by(f"{HEADLINES}/{file.name}") not in self.graph:
                file.unlink()
        from engine.dvc.recording import Recorder
        from engine.identity.text import resources_text

        recorder = Recorder(self.root, self.hashes) if (self.root / ".dvc").is_dir() else None
        for step in self._whole:
            write_text(self.root / step.identity, self.identities[step.name])
            write_text(self.root / dvcfile.RESOURCES / f"{step.name}.json", resources_text(step))
            if recorder:
                # Not a DVC output: cached so that a later plan can say what has changed.
                recorder.keep(step.identity, link=False)
        if recorder:
            recorder.untie(self.graph)
        self._write(dvcfile.PARAMS)
        write_text(self.root / dvcfile.RESOLVED, dvcfile.RESOLVED_TEXT)

    def order_lock(self) -> None:
        """Sort `dvc.lock` and reserve an entry in it for every step: `dvc repro` appends new records at the end.

        Raises UserError if it cannot be read."""
        path = self.root / dvcfile.LOCK
        old = path.read_bytes() if path.exists() else None
        try:
            lock = dvcfile.LockText(old)
        except ValueError as error:
            raise dvcfile.unreadable(error) from None
        lock.reserve({dvcfile.RESOLVE: dvcfile.RESOLVE_COMMAND} | {step.name: dvcfile.command(step) for step in self.graph})
        if (text := lock.text()) != old:
            from engine.dvc.locks import dvc_lock
            from engine.dvc.writing import replace_with

            with dvc_lock(self.root):
                replace_with(path, text)

    def store(self) -> Disk:
        """The store that reads this workspace's disk."""
        return Disk(self.root, self.hashes)

    def plan(self, graph: Graph | None = None, store: Disk | None = None, dvc: bool = False) -> Plan:
        """Plan GRAPH (default: all steps) as `engine build` or, with DVC, plain `dvc repro` would run it; changes no workspace file."""
        store = store or self.store()
        plan = make_plan(graph or self.graph, store, _Texts(self), self.plan_resolve(store), self.outline.digests, dvc)
        store.hashes.save()
        return plan

    def plan_resolve(self, store: Disk) -> Decision:
        """Decide DVC's first step."""
        return plan_resolve(self.outline.resolved, {path: store.entry(path) for path in self.outline.resolved})


@dataclass(frozen=True)
class _Texts(Mapping[str, str]):
    """The texts of a project's identity files, computed on first access."""

    project: Project

    def __getitem__(self, name: str) -> str:
        return self.project.identity(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.project.outline.digests)

    def __len__(self) -> int:
        return len(self.project.outline.digests)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
