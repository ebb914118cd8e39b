"""The command that shows metrics: results."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from engine.cli.app import Json, Specs, app, load_project
from engine.core.errors import Problem, UserError

if TYPE_CHECKING:
    from engine.plan.project import Project
    from engine.results.changes import Recorded
    from engine.results.table import Result
    from engine.spec.sections import Spec


_SPECS_NAMED = 5
"""If more specs than these lack results, the message counts them."""


class _Table(NamedTuple):
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str | None = None


@app.command()
def results(
    specs: Specs = None,
    metric: Annotated[
        str | None, typer.Option(metavar="METRIC", help="The metric to show. Default: the first.", show_default=False)
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Order by a task, best first, or by experiment or method. Default: by trained tasks.", show_default=False
        ),
    ] = None,
    intervals: Annotated[
        bool | None,
        typer.Option(
            "--intervals/--no-intervals", help="Show each value with its confidence interval. Default: if the terminal is wide enough."
        ),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print all values with intervals as CSV, one per line; of --metric win_rate, comparisons.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables in Markdown, for a pull request.")] = False,
    json: Json = False,
) -> None:
    """Show the metrics of experiments on tasks: which is best, how sure that is, and which differences are significant."""
    from engine.cli import render
    from engine.results.table import as_data, chosen_metric, comparison_rows, value_rows
    from engine.results.table import results as collect

    if csv + markdown + json > 1:
        raise UserError("--csv, --markdown and --json exclude each other", hint="give one of them")
    project = load_project()
    chosen = project.chosen(specs or [])
    if not (csv or json):
        print_results(project, chosen, metric, intervals, sort, markdown)
        return
    if sort:
        raise UserError("--sort orders the tables, which --csv and --json do not print", hint="leave --sort out")
    found = collect(chosen, project.graph, project.store(), project.plan())
    if not found:
        raise _unevaluated(chosen)
    if metric:
        chosen_metric(found, metric)
    if json:
        render.as_json({"results": as_data(found)})
    else:
        render.as_csv(*(comparison_rows(found, metric) if metric and not _is_of_one_model(found, metric) else value_rows(found, metric)))


def _unevaluated(specs: "Sequence[Spec]") -> UserError:
    """What to build, if none of SPECS has results; the points of a sweep are built by its spec."""
    paths = list(dict.fromkeys(spec.path for spec in specs))
    if len(paths) > _SPECS_NAMED:
        return UserError(f"none of {len(specs)} experiments has been evaluated yet", hint="run: engine build")
    return UserError(f"not evaluated yet: {', '.join(paths)}", hint=f"run: engine build {' '.join(map(shlex.quote, paths))}")


def print_results(
    project: "Project",
    specs: "Sequence[Spec]",
    metric: str | None,
    intervals: bool | None = None,
    sort: str | None = None,
    markdown: bool = False,
    before: "Mapping[str, Recorded] | None" = None,
) -> None:
    """Print the results of SPECS: what they say in sentences, then tables: values of one metric, points of sweeps, benchmarks, differences.

    INTERVALS shows each value with its interval; None: if the terminal is wide enough. BEFORE: what was recorded before a build; what
    has changed since is printed last.
    """
    from engine.cli import render
    from engine.results.changes import Recorded, changes
    from engine.results.ranking import headline
    from engine.results.table import chosen_metric, ignored_text
    from engine.results.table import results as collect

    found = collect(specs, project.graph, project.store(), project.plan())
    if not found:
        raise _unevaluated(specs)
    shown = chosen_metric(found, metric)
    said = [*headline(found, shown), *ignored_text(found)]
    tables = list(_tables(project, specs, found, shown, intervals, sort))
    if markdown:
        told = [f"Warning: {one.what}. To try: {one.hint}." for result in found for one in result.warnings]
        render.as_markdown([*said, *told], tables)
        return
    for line in said:
        render.sentence(line)
    for table in tables:
        render.table(*table)
    render.warnings(Problem(one.what, hint=one.hint, severity="warning") for result in found for one in result.warnings)
    now = {result.experiment: Recorded(result.digest, result.scores) for result in found}
    if changed := changes(before or {}, now, shown):
        render.sentence("Since the last build:")
        render.lines((f"  {line}", "") for line in changed)


def _is_of_one_model(found: "Sequence[Result]", metric: str) -> bool:
    """Whether METRIC is a value of a model alone; the win rate is one of two models, which only comparisons have."""
    return any(metric in scores for result in found for scores in result.scores.values())


def _tables(
    project: "Project", specs: "Sequence[Spec]", found: "Sequence[Result]", shown: str, intervals: bool | None, sort: str | None
) -> Iterator[_Table]:
    from engine.cli import render
    from engine.results.held_out import held_out_tables
    from engine.results.ranking import legend
    from engine.results.sweeps import sweep_table, sweeps
    from engine.results.table import BENCHMARK_COLUMNS, benchmark_table, comparison_table, score_table

    if _is_of_one_model(found, shown):
        columns, rows = score_table(found, shown, intervals is not False, sort)
        if intervals is None and not render.fits(columns, rows):
            columns, rows = score_table(found, shown, sort=sort)
        yield _Table(f"{shown} on held-out rows", columns, rows, legend(found, shown))
        for sweep in sweeps(specs, found, project.graph, project.store(), project.plan()):
            yield _Table(f"sweep {sweep.name}: {shown} by point", *sweep_table(sweep, shown, intervals is not False))
    elif sort:
        raise UserError(f"{shown} is a value of two models, and its table has no column to sort by", hint="leave --sort out")
    for table in held_out_tables(found):
        yield _Table(*table)
    if rows := benchmark_table(found):
        yield _Table("benchmarks", BENCHMARK_COLUMNS, rows)
    columns, rows, tested = comparison_table(found, shown)
    if rows:
        yield _Table(f"differences in {shown} on the same rows", columns, rows, tested)
