"""The commands that run the plan and share what came of it: build, wait, push."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.app import INTERRUPTED, PREEMPTED, SOMETHING_TO_DO, Targets, app, load_project, ready

if TYPE_CHECKING:
    from engine.core.graph import Graph, Step
    from engine.plan.project import Project


@app.command()
def build(
    targets: Targets = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Run at most N steps at once. Default: 1, on a cluster 50.", metavar="N")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Run at most N device steps at once (train, predict, evaluate).", metavar="N")] = 1,
    pull: Annotated[
        bool, typer.Option("--pull", help="Restore the results that DVC's remote has of other runs, and run the rest.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            help="Where the steps run: local, slurm, ray, or a plug-in; default: [tool.adapterbuild.executor] on.", metavar="EXECUTOR"
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="On a cluster: end when everything that can start is submitted; `engine wait` goes on.")
    ] = False,
    no_fork: Annotated[
        bool, typer.Option("--no-fork", help="Start each step as a new process, rather than fork one that has imported the libraries.")
    ] = False,
) -> None:
    """Compile the specs, run the plan, record the runs as `dvc repro` does, and print the results."""
    _build(targets or [], jobs, devices, pull, on, detach, no_fork)


@app.command()
def wait() -> None:
    """Wait for the jobs that `engine build --detach` has left on a cluster, and go on with that build until everything is built."""
    from engine.build.detached import detached, forget
    from engine.cli import render

    root = load_project().root
    left = detached(root)
    if not left:
        render.note("no build was detached here")
    for each in left:
        _build(list(each.targets), each.jobs, 1, False, each.on, False, False)
        forget(root, each.on)


def _build(targets: list[str], jobs: int | None, devices: int, pull: bool, on: str | None, detach: bool, no_fork: bool) -> None:
    from engine.build.detached import Detached, note
    from engine.build.driver import BuildDetached, BuildPreempted, dvc_environment
    from engine.build.driver import build as run
    from engine.build.executors.base import Executor
    from engine.build.executors.distributed import Distributed, distributed
    from engine.build.executors.local import Local
    from engine.build.forks import forks
    from engine.build.pulling import Puller
    from engine.build.pushing import push as send
    from engine.build.settings import cluster, executor_settings
    from engine.cli import render
    from engine.cli.build_view import View
    from engine.cli.results import print_results
    from engine.core.errors import UserError
    from engine.dvc.remote import Remote
    from engine.dvc.sharing import sharing
    from engine.report.live import said
    from engine.results.changes import recorded

    project = load_project()
    selected = project.select(targets)
    ready(project.root)
    environment = dvc_environment()
    settings = executor_settings(project.root, tuple(sorted({step.kind_name for step in project.graph})))
    where = on or settings.on
    at_once = jobs or (1 if where == "local" else settings.jobs or 50)
    device_steps = devices if where == "local" else at_once
    if detach and where == "local":
        raise UserError("--detach is for clusters: steps of a local build end with it", hint="add --on slurm")

    def executor_of(remote: Remote) -> Executor:
        if where == "local":
            server = None if no_fork else forks(project.root, environment, selected.graph)
            return Local(project.root, environment, at_once, {"device": devices}, forks=server)
        there = cluster(where, settings.rest if where == settings.on else {})
        return distributed(project, selected.graph, there, remote, settings, at_once, render.warn, detach)

    shared = sharing(project.root)
    signer = shared.signer() if shared.push == "always" else None

    def share(steps: "Sequence[Step]") -> None:
        try:
            send(steps, project.store(), remote, signer, _tell_pushed)
        except UserError as error:
            render.warn(f"{error.problems[0].what}; to send the results later: engine push")

    built = [spec for spec in project.specs if spec.name in selected.experiments]
    before = recorded(built, project.graph, project.store())
    try:
        with (
            Remote(project.root) as remote,
            executor_of(remote) as executor,
            View(
                len(selected.graph),
                live=where != "local" or at_once > 1,
                expected=_expected(project, selected.graph, at_once, device_steps) if sys.stderr.isatty() else {},
                said=executor.does if isinstance(executor, Distributed) else partial(said, project.root),
            ) as view,
        ):
            # What somebody else has built is restored before anything is submitted.
            puller = Puller(project.store(), remote, render.warn) if pull or where != "local" else None
            run(project, selected.graph, executor, view, puller, where == "local", share if shared.push == "always" else None)
    except KeyboardInterrupt:
        # typer would exit without a message.
        render.note("interrupted: finished steps are kept; run the same command to resume")
        raise typer.Exit(INTERRUPTED) from None
    except BuildDetached as left:
        note(project.root, Detached(where, tuple(targets), jobs))
        render.note(str(left))
        raise typer.Exit(SOMETHING_TO_DO) from None
    except BuildPreempted as stopped:
        render.error(stopped)
        raise typer.Exit(PREEMPTED) from None
    if built:
        print_results(project, built, None, before=before)


def _expected(project: "Project", graph: "Graph", jobs: int, devices: int) -> dict[str, tuple[float | None, int]]:
    """The steps of GRAPH that may run, each with the seconds of its last run on this machine and how many of its sort run at once."""
    from engine.plan.cost_memo import costs_of
    from engine.plan.decide import Action

    store = project.store()
    plan = project.plan(graph, store)
    known = costs_of(project, plan, store).steps
    steps = [graph[one.name] for one in plan.decisions if one.name in graph and one.action in (Action.RUN, Action.MAYBE)]
    return {step.name: (known[step.name]["seconds"], min(jobs, devices) if step.kind.slot == "device" else jobs) for step in steps}


@app.command()
def push(targets: Targets = None) -> None:
    """Send what is built to DVC's default remote, where others' `engine build --pull` and `engine plan --remote` find it."""
    from engine.build.pushing import push as send
    from engine.cli import render
    from engine.dvc.remote import Remote
    from engine.dvc.sharing import sharing

    project = load_project()
    selected = project.select(targets or [])
    with Remote(project.root) as remote:
        done = send(selected.graph, project.store(), remote, sharing(project.root).signer(), _tell_pushed)
    render.note(f"{done.steps} steps in the remote, {done.sent / 1e6:,.1f} MB sent")
    if done.unbuilt:
        render.warn(f"not built, so not pushed: {', '.join(done.unbuilt[:5])}{' …' if len(done.unbuilt) > 5 else ''}")


def _tell_pushed(step: str, size: int) -> None:
    from engine.cli import render

    render.step_line("pushed", step, f"{size / 1e6:,.1f} MB" if size else "the remote has it")
