"""The verbs of `engine`; thin: each one loads a project, asks it one thing, and renders the answer."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import UserError, no_room

app = typer.Typer(
    name="engine",
    help="Bazel for fine-tuned models: TOML specs in, a DVC pipeline out, and a plan that says what would run, why and at what cost.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help as plain text: the other sort imports a whole Markdown parser
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NAMED_STEPS = 40
"""A command with more steps than this is not printed whole."""

NOTHING_TO_DO, MISTAKE, SOMETHING_TO_DO, PREEMPTED, INTERRUPTED = 0, 1, 2, 75, 130

Specs = Annotated[list[Path] | None, typer.Argument(metavar="SPEC", help="Specs of the workspace; none given: all of them.")]
Targets = Annotated[
    list[str] | None, typer.Argument(metavar="SPEC|STEP", help="Specs, or names of steps; none given: everything.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")]


class _Settings:
    """What the options before the verb say."""

    workspace = Path()


@app.callback()
def _options(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", metavar="DIR", help="The folder with specs, dvc.yaml and artifacts.")
    ] = Path(),
) -> None:
    _Settings.workspace = workspace


def load_project() -> Any:
    from engine.project import Project
    from engine.workspace import Workspace

    return Project(Workspace.at(_Settings.workspace))


def ready(root: Path) -> None:
    """Mend what git has left conflict markers in, and see that this clone merges generated files step by step; says what is new."""
    from engine import conflicts, render
    from engine.workspace import CODE_ROOT

    for sentence in conflicts.mend(root):
        render.note(sentence)
    if conflicts.install_driver(root, CODE_ROOT):
        render.note(
            f"git merges {', '.join(conflicts.FILES)} step by step in this clone from now on (merge.{conflicts.DRIVER} in .git/config)"
        )


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="The folder to make a workspace of.")] = Path()) -> None:
    """Make a workspace: git, DVC, ignore files, and a first spec to edit."""
    from engine import render
    from engine.init import init as make

    made = make(directory)
    render.note(f"{directory} is a workspace" + (f" with {', '.join(made)}" if made else ""))
    render.note("next: engine plan" if directory.resolve() == Path.cwd() else f"next: engine --workspace {directory} plan")


@app.command()
def check(specs: Specs = None) -> None:
    """Check specs: keys, values, references and files; every problem at once, with file, line and hint."""
    from engine import render
    from engine.machine import missing_loggers

    project = load_project()
    chosen = project.named(specs or [])
    steps = len(project.select([str(path) for path in specs or []]).graph) + 1  # `resolve`, DVC's first, which the plan counts too
    render.warnings([*project.outline.warnings, *missing_loggers(project.outline.loggers)])
    render.note(f"{len(chosen)} {'spec is' if len(chosen) == 1 else 'specs are'} fine: {steps} steps")


@app.command()
def schema(
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the schema to FILE.")] = None,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Exit with 1 where FILE is not the schema.")] = None,
) -> None:
    """The JSON Schema of specs, for editors that complete and check TOML."""
    from engine.spec.schema import schema_text

    text = schema_text()
    if write:
        write.write_text(text, "utf-8")
    elif check and (not check.exists() or check.read_text("utf-8") != text):
        raise UserError(f"{check} is not the schema of this version", hint=f"run: engine schema --write {check}")
    elif not check:
        sys.stdout.write(text)


@app.command()
def show(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="One spec of the workspace.")],
    json: Json = False,
    deepspeed: Annotated[bool, typer.Option("--deepspeed", help="Show the DeepSpeed configuration of its training instead.")] = False,
) -> None:
    """The resolved spec: every value, and the file and line that it comes from."""
    from engine import render
    from engine.spec.explain import explain_all

    chosen = load_project().chosen([spec])
    if deepspeed:
        from engine.deepspeed import configuration

        # No resource can be swept: the configuration of all points is the same.
        render.as_json(configuration(chosen[0]))
        return
    values = explain_all(chosen)
    if json:
        render.as_json([v.as_data() for v in values])
    else:
        render.lines((f"{v.named} = {v.value}", f"{v.where.file}:{v.where.line}" if v.where else "default") for v in values)


@app.command()
def compile(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 where the files are stale, and say how.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over files that were edited by hand.")] = False,
) -> None:
    """Write dvc.yaml and params.yaml from the specs."""
    from engine import render

    project = load_project()
    if not check:
        ready(project.root)
    if check:
        stale = project.stale()
        if stale:
            moved = project.moved_specs()
            shown = "\n".join([f"moved: {', '.join(moved)}", *stale.values()] if moved else stale.values())
            raise UserError(
                f"{' and '.join(stale)} {'are' if len(stale) > 1 else 'is'} not what the specs say\n{shown}", hint="run: engine compile"
            )
        render.note("dvc.yaml and params.yaml are what the specs say")
        return
    written = project.write_compiled(force)
    said = f"{' and '.join(written)} written: {len(project.graph) + 1} steps"
    render.note(said if written else "dvc.yaml and params.yaml were up to date")


@app.command()
def plan(
    targets: Targets = None,
    json: Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where a training cannot fit the device that its spec states.")
    ] = False,
    dvc: Annotated[
        bool, typer.Option("--dvc", help="Say what plain `dvc repro` would do, which finds fewer earlier results than `engine build`.")
    ] = False,
) -> None:
    """Say what would run, why, and what it would cost; writes nothing. Exit code: 0 nothing to do, 2 something to do, 1 error."""
    from engine import conflicts, render
    from engine.costs import costs_of
    from engine.why import acceptable

    project = load_project()
    selected = project.select(targets or [])
    store = project.store()
    decided = project.plan(selected.graph, store, dvc)
    costs = costs_of(project, decided, store)
    if json:
        render.plan_as_json(decided, costs)
    else:
        for name in conflicts.FILES:
            if conflicts.mended(project.root, name):
                render.warn(
                    f"{name} has merge conflicts; the plan reads it with the records of both sides, and `engine build` writes it so"
                )
        if dvc:
            render.note("this is what plain `dvc repro` would do; for `engine build`: engine plan")
        if project.pipeline_is_stale:
            render.warn("dvc.yaml is not what the specs say yet; `engine build` writes it, plain `dvc repro` needs: engine compile")
        render.plan(selected.title, decided, costs)
        if names := acceptable(decided):
            shown = (
                names
                if len(names) <= _NAMED_STEPS
                else [*names[:_NAMED_STEPS], f"... ({len(names)} steps; all of them: engine plan --json)"]
            )
            render.note(f"only code or versions changed; where you know that to be harmless: engine accept {' '.join(shown)}")
    for name in costs.unchecked:
        render.note(f"{name}: whether it fits its device is unknown: its model is not here yet, or its architecture is not known")
    for text in costs.shortages:
        render.warn(text)
    if strict and costs.shortages:
        raise typer.Exit(MISTAKE)
    raise typer.Exit(NOTHING_TO_DO if decided.up_to_date else SOMETHING_TO_DO)


@app.command()
def build(
    targets: Targets = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="At most N steps at once.", metavar="N")] = 1,
    devices: Annotated[int, typer.Option(min=1, help="At most N device steps at once (train, predict, evaluate).", metavar="N")] = 1,
    pull: Annotated[bool, typer.Option("--pull", help="Restore what DVC's remote has of others' runs, and run the rest.")] = False,
) -> None:
    """Compile, run what the plan says, record it as `dvc repro` does, and print the results."""
    from engine import executors, render
    from engine.build import BuildPreempted, dvc_environment
    from engine.build import build as run
    from engine.pulling import Puller
    from engine.view import View

    project = load_project()
    selected = project.select(targets or [])
    ready(project.root)
    if jobs > 1:
        executor = executors.side_by_side(project.root, dvc_environment(), jobs, devices)
    else:
        executor = executors.in_turn(project.root, dvc_environment())
    puller = Puller(project.root, project.store(), render.warn) if pull else None
    try:
        with View(len(selected.graph), live=jobs > 1) as view:
            run(project, selected.graph, executor, view, puller)
    except KeyboardInterrupt:
        # typer would turn it into an exit without a word.
        render.note("interrupted: finished steps stay finished; run the same command to go on")
        raise typer.Exit(INTERRUPTED) from None
    except BuildPreempted as stopped:
        render.error(stopped)
        raise typer.Exit(PREEMPTED) from None
    finally:
        if puller:
            puller.close()
    if selected.experiments:
        _print_results(project, [spec for spec in project.specs if spec.name in selected.experiments], None)


@app.command(hidden=True)
def resolve() -> None:
    """What DVC runs first: write every step's identity, its resources, and params.yaml."""
    project = load_project()
    project.resolve()
    project.order_lock()


@app.command(name="merge-file", hidden=True)
def merge_file(base: Path, ours: Path, theirs: Path, path: str) -> None:
    """What git runs to merge a generated file: BASE and THEIRS into OURS; PATH is its name in the repository."""
    from engine import conflicts

    try:
        conflicts.merge_file(base, ours, theirs, path)
    except ValueError as error:
        raise UserError(f"{path} cannot be merged step by step: {error}") from None


@app.command()
def doctor(json: Json = False) -> None:
    """Check what a workspace stands on: git, DVC, the merge driver, dvc.lock, the cache. Exit code 1: something is wrong."""
    from engine import render
    from engine.doctor import COLUMNS, examine

    found = examine(_Settings.workspace.resolve())
    good = all(one.holds for one in found)
    if json:
        render.as_json({"healthy": good, "checks": [vars(one) for one in found]})
    else:
        render.table("doctor", list(COLUMNS), [[one.what, "yes" if one.holds else "NO", one.detail] for one in found])
    if not good:
        raise typer.Exit(MISTAKE)


@app.command()
def results(
    specs: Specs = None,
    metric: Annotated[str | None, typer.Option(help="The metric in the table; none given: the first one.", show_default=False)] = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="Show each value with its confidence interval.")] = False,
    json: Json = False,
) -> None:
    """The table of what was built: experiments against tasks; and where experiments are compared, which differences are real."""
    from engine import render
    from engine.results import as_data
    from engine.results import results as collect

    project = load_project()
    chosen = project.chosen(specs or [])
    if json:
        render.as_json(as_data(collect(chosen, project.graph, project.store(), project.plan())))
    else:
        _print_results(project, chosen, metric, intervals)


def _print_results(project: Any, specs: Any, metric: str | None, intervals: bool = False) -> None:
    from engine import render
    from engine.results import BENCHMARK_COLUMNS, COMPARISON_COLUMNS, benchmark_table, chosen_metric, comparison_table, score_table, unseen
    from engine.results import results as collect
    from engine.sweeps import sweep_table, sweeps

    store, plan = project.store(), project.plan()
    found = collect(specs, project.graph, store, plan)
    if not found:
        raise UserError("nothing has been evaluated yet", hint="run: engine build")
    shown = chosen_metric(found, metric)
    render.table(f"{shown} on unseen rows", *score_table(found, shown, intervals))
    for line in unseen(found):
        render.note(line)
    for sweep in sweeps(specs, found, project.graph, store, plan):
        render.table(f"sweep {sweep.name}: {shown} of its points", *sweep_table(sweep, shown))
    if rows := benchmark_table(found):
        render.table("benchmarks", BENCHMARK_COLUMNS, rows)
    if rows := comparison_table(found, shown):
        render.table(f"differences in {shown} on the same rows", COMPARISON_COLUMNS, rows)


def main() -> None:
    """Run a verb; a user's mistake is printed without a traceback, exit code 1."""
    from engine import cli_artifacts, cli_graph, cli_history, cli_inspect, cli_preview, cli_report, cli_sweep  # noqa: F401 - add their verbs to the app
    from engine.cli_values import command_of

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows `?` in place of guides
    try:
        command_of(app)()
    except UserError as error:
        from engine import render

        render.error(error)
        sys.exit(MISTAKE)
    except OSError as error:
        if (full := no_room(error)) is None:
            raise
        from engine import render

        render.error(full)
        sys.exit(MISTAKE)
