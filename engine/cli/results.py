"""The command that shows metrics: results."""

from typing import Annotated, Any

import typer

from engine.cli.app import Json, Specs, app, load_project
from engine.core.errors import UserError


@app.command()
def results(
    specs: Specs = None,
    metric: Annotated[
        str | None, typer.Option(metavar="METRIC", help="The metric to show. Default: the first.", show_default=False)
    ] = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="Show each value with its confidence interval.")] = False,
    json: Json = False,
) -> None:
    """Show the metrics of experiments on tasks and, for compared experiments, which differences are significant."""
    from engine.cli import render
    from engine.results.table import as_data
    from engine.results.table import results as collect

    project = load_project()
    chosen = project.chosen(specs or [])
    if json:
        render.as_json(as_data(collect(chosen, project.graph, project.store(), project.plan())))
    else:
        print_results(project, chosen, metric, intervals)


def print_results(project: Any, specs: Any, metric: str | None, intervals: bool = False) -> None:
    """Print the tables of SPECS: the values of one metric, points of sweeps, benchmarks, and differences."""
    from engine.cli import render
    from engine.results.sweeps import sweep_table, sweeps
    from engine.results.table import (
        BENCHMARK_COLUMNS,
        COMPARISON_COLUMNS,
        benchmark_table,
        chosen_metric,
        comparison_table,
        ignored_text,
        score_table,
    )
    from engine.results.table import results as collect

    store, plan = project.store(), project.plan()
    found = collect(specs, project.graph, store, plan)
    if not found:
        raise UserError("nothing has been evaluated yet", hint="run: engine build")
    shown = chosen_metric(found, metric)
    render.table(f"{shown} on held-out rows", *score_table(found, shown, intervals))
    for line in ignored_text(found):
        render.note(line)
    for sweep in sweeps(specs, found, project.graph, store, plan):
        render.table(f"sweep {sweep.name}: {shown} by point", *sweep_table(sweep, shown))
    if rows := benchmark_table(found):
        render.table("benchmarks", BENCHMARK_COLUMNS, rows)
    if rows := comparison_table(found, shown):
        render.table(f"differences in {shown} on the same rows", COMPARISON_COLUMNS, rows)
