"""The command that runs the plan: build."""

from typing import Annotated

import typer

from engine.cli.app import INTERRUPTED, PREEMPTED, Targets, app, load_project, ready


@app.command()
def build(
    targets: Targets = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Run at most N steps at once.", metavar="N")] = 1,
    devices: Annotated[int, typer.Option(min=1, help="Run at most N device steps at once (train, predict, evaluate).", metavar="N")] = 1,
    pull: Annotated[
        bool, typer.Option("--pull", help="Restore the results that DVC's remote has of other runs, and run the rest.")
    ] = False,
    no_fork: Annotated[
        bool, typer.Option("--no-fork", help="Start each step as a new process, rather than fork one that has imported the libraries.")
    ] = False,
) -> None:
    """Compile the specs, run the plan, record the runs as `dvc repro` does, and print the results."""
    from engine.build import executors
    from engine.build.driver import BuildPreempted, dvc_environment
    from engine.build.driver import build as run
    from engine.build.forks import forks
    from engine.build.pulling import Puller
    from engine.cli import render
    from engine.cli.build_view import View
    from engine.cli.results import print_results
    from engine.dvc.remote import Remote

    project = load_project()
    selected = project.select(targets or [])
    ready(project.root)
    environment = dvc_environment()
    server = None if no_fork else forks(project.root, environment, selected.graph)
    try:
        with (
            Remote(project.root) as remote,
            View(len(selected.graph), live=jobs > 1) as view,
            executors.Local(project.root, environment, jobs, {"device": devices}, forks=server) as executor,
        ):
            puller = Puller(project.store(), remote, render.warn) if pull else None
            run(project, selected.graph, executor, view, puller)
    except KeyboardInterrupt:
        # typer would exit without a message.
        render.note("interrupted: finished steps are kept; run the same command to resume")
        raise typer.Exit(INTERRUPTED) from None
    except BuildPreempted as stopped:
        render.error(stopped)
        raise typer.Exit(PREEMPTED) from None
    if selected.experiments:
        print_results(project, [spec for spec in project.specs if spec.name in selected.experiments], None)
