"""The sections of the report, one function each; each names what is not built yet and the command that builds it."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import PurePosixPath
from typing import Any

from engine import __version__
from engine.core.digests import short
from engine.estimate.training import needed
from engine.identity.environment import LOCK, REQUIREMENTS
from engine.report import pictures
from engine.report.blocks import AnswerRows, Answers, Block, Commands, Filter, Picture, Remark, Section, Statement, Table, TokenRow
from engine.report.collect import ROWS_SHOWN, Node, ReportData, losses, measures, predictions, row_lengths, scores, smoothed, token_rows
from engine.report.live import running
from engine.results.held_out import held_out_tables
from engine.results.ranking import headline, legend
from engine.results.sweeps import SEED, VALIDATION_LOSS, Sweep, lines, sweep_table
from engine.results.table import BENCHMARK_COLUMNS, benchmark_table, chosen_metric, comparison_table, ignored_text, score_table

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def sections(data: ReportData) -> list[Section]:
    """All sections of the report: what came out, then why, then what it takes to check it."""
    return [
        Section("summary", "Summary", _summary(data)),
        *_changes(data),
        Section("answers", "Sample predictions", _answers(data)),
        Section("scores", "Metrics", _scores(data)),
        *_learned(data),
        *_sweeps(data, _metrics(data)),
        *_exports(data),
        Section("loss", "Loss curves", _losses(data)),
        Section("funnel", "Data funnel", _funnel(data)),
        Section("mixture", "Mixture", _mixture(data)),
        Section("tokens", "Tokens and labels", _tokens(data)),
        Section("cost", "Cost", _cost(data)),
        Section("rebuild", "Reproduce", _rebuild(data)),
        Section("experiments", "Experiments", _experiments(data)),
        Section("graph", "Step graph", _graph(data), folded=True),
        Section("steps", "Steps", _steps(data), folded=True),
    ]


def _summary(data: ReportData) -> list[Block]:
    """The results in words, the main metric of every model on every task, and what is out of date."""
    blocks: list[Block] = []
    if main := next(iter(_metrics(data)), None):
        blocks += [Statement(line) for line in headline(data.results, main)]
        blocks += _across(data, main)
    if waiting := [node.name for node in data.nodes.values() if node.action != "keep"]:
        named = ", ".join(waiting[:10]) + (", …" if len(waiting) > 10 else "")
        blocks.append(
            Remark(f"{len(waiting)} of {len(data.nodes)} steps are out of date: {named}. To bring them up to date, run: engine build")
        )
    return blocks or [Remark("Nothing has been evaluated yet.")]


def running_now(data: ReportData) -> list[Section]:
    """The steps that run while this is written, with the losses of trainings so far; no section if none runs."""
    found = running(data.root, [node.name for node in data.nodes.values() if node.action != "keep"])
    if not found:
        return []
    rows = [[one.name, f"{one.seconds:,.0f} s", one.said or "–"] for one in found]
    blocks: list[Block] = [Table(f"{len(found)} of {len(data.nodes)} steps run", ("step", "for", "progress"), rows)]
    if curves := {one.name.removeprefix("train-"): one.curve for one in found if one.curve}:
        blocks.append(Picture("loss-now", "Training loss so far", pictures.curves("loss-now", curves)))
    return [Section("running", "Running now", blocks)]


_CHANGES_SHOWN = 30
"""Rows of a table of changes; of more, the table has the first."""


def _changes(data: ReportData) -> list[Section]:
    """What the last commit has otherwise: values of metrics, content addresses, recipes, steps; no section without a commit."""
    found = data.changes
    if found is None:
        return []
    commit = short(found.old.title)
    if "dvc.lock" in found.old.missing:
        return [Section("changes", "Since the last commit", [Remark(f"Nothing is recorded as built at the last commit, {commit}.")])]
    measured = set(_metrics(data))
    values = [
        [change.step.removeprefix("evaluate-"), task, metric, _value(change.old), _value(change.new), change.shown_difference]
        for change in found.metrics
        if change.step in data.nodes and data.nodes[change.step].kind == "evaluate"
        for task, _, metric in [change.subject.rpartition(".")]
        if metric in measured
    ]
    addresses = [[one.step, _address(one.old), _address(one.new)] for one in found.adapters if one.step in data.nodes]
    recipes = [[one.step, one.subject, _value(one.old), _value(one.new)] for one in found.recipes if one.step in data.nodes]
    added = [name for name in found.added if name in data.nodes]
    tables = (
        ("Values of metrics", ("experiment", "task", "metric", "before", "now", "difference"), values),
        ("Adapters and models, by content address", ("step", "before", "now"), addresses),
        ("Recipes", ("step", "field", "before", "now"), recipes),
        ("Steps", ("step", ""), [[name, "added"] for name in added] + [[name, "removed"] for name in found.removed]),
    )
    blocks: list[Block] = []
    for caption, columns, rows in tables:
        if rows:
            more = f" ({_CHANGES_SHOWN} of {len(rows)}; all: engine diff HEAD)" if len(rows) > _CHANGES_SHOWN else ""
            blocks.append(Table(f"Changed: {caption.lower()}{more}", columns, rows[:_CHANGES_SHOWN]))
    if not blocks:
        same = f"No metric, adapter, recipe or step differs from the last commit, {commit}."
        return [Section("changes", "Since the last commit", [Remark(same)])]
    counts = [
        f"{len(rows)} {words}"
        for rows, words in (
            (values, "values of metrics"),
            (addresses, "adapters and models"),
            (recipes, "fields of recipes"),
            ((*added, *found.removed), "steps that are new or gone"),
        )
        if rows
    ]
    told = f"What is here differs from the last commit, {commit}, in {', '.join(counts)}."
    return [Section("changes", "Since the last commit", [Remark(told), *blocks])]


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _address(digest: Any) -> str:
    return "–" if digest is None else short(digest) if str(digest).startswith("sha256:") else str(digest)


_EXPORTED = (
    "step",
    "asked through",
    "bytes",
    "divergence",
    "limit",
    "answers equal",
    "answers that stop",
    "in training",
    "content address",
)


def _exports(data: ReportData) -> list[Section]:
    """What was exported, and by how much it differs from the trained model; no section without exports."""
    nodes = data.of("export")
    if not nodes:
        return []
    rows = []
    for node in nodes:
        found = node.metrics
        numbers = ["–" if (value := found.get(key)) is None else f"{value:.3g}" for key in ("divergence", "max_divergence")]
        counts = [_count(found.get(key)) for key in ("stopped", "stopped_in_training")]
        equal = _percent(found.get("equal_answers"))
        rows.append([node.name, str(found.get("asked_through", "–")), _count(found.get("bytes")), *numbers, equal, *counts, _digest(node)])
    told = "Exports and the trained model (divergence: the largest Kullback-Leibler divergence of an answer's first or next token, in nats)"
    return [Section("exports", "Exports", [Table(told, _EXPORTED, rows)])]


def _missing(what: str, command: str = "engine build") -> Remark:
    return Remark(f"Not built yet: {what}. Run: {command}")


def _experiments(data: ReportData) -> list[Block]:
    """Every experiment with its size and content address."""
    rows = []
    for one in data.experiments:
        node = data.nodes.get(one.step)
        metrics = node.metrics if node else {}
        sizes = [_count(metrics.get(key)) for key in ("trainable_parameters", "parameters")]
        rows.append([one.name, ", ".join(one.tasks), one.method, *sizes, _state(node), one.spec, _digest(node, whole=True)])
    columns = ("experiment", "trained on", "method", "trainable", "parameters", "state", "spec", "content address")
    return [Table("Experiments", columns, rows)] if rows else [Remark("There are no experiments.")]


def _steps(data: ReportData) -> list[Block]:
    """Every step with its content address and identity."""
    rows = [
        [node.name, node.kind, node.action, _digest(node), short(node.provenance.identity) if node.provenance else "–"]
        for node in data.nodes.values()
    ]
    return [Table("Steps", ("step", "kind", "plan", "content address", "identity"), rows)] if rows else [Remark("There are no steps.")]


def _digest(node: Node | None, whole: bool = False) -> str:
    if node is None or node.provenance is None:
        return "not built"
    return node.provenance.digest if whole else short(node.provenance.digest)


def _state(node: Node | None) -> str:
    if node is None or node.provenance is None:
        return "not built"
    return "current" if node.action == "keep" else f"stale (plan: {node.action})"


def _graph(data: ReportData) -> list[Block]:
    if not data.nodes:
        return [Remark("There are no steps.")]
    counts = Counter(node.action for node in data.nodes.values())
    said = ", ".join(f"{counts[action]} {action}" for action in pictures.COLOURS if counts[action])
    return [Picture("graph", f"{len(data.nodes)} steps: {said}. {_LEGEND}", pictures.graph(data.nodes))]


_LEGEND = "Green: up to date; blue: restored from the cache; orange: would run; violet: may run, depending on an earlier step."


_EVALUATED_COLUMNS = ("step", "task", "rows in", "left out", "predictions")
_PAIR_COLUMNS = ("step", "prompts", "pairs", "prompts without a pair", "mean margin", "tokens of chosen", "of rejected")


_SPLITS = ("train", "validation", "test")
_TASKS_DRAWN = 40
"""More tasks have no picture: it would be taller than a screen."""


def _funnel(data: ReportData) -> list[Block]:
    """One row per task: rows in, rows left out, and rows in each split."""
    rows: list[list[str]] = []
    drawn: dict[str, dict[str, int]] = {}
    for split in data.of("split"):
        source = next((data.nodes[name] for name in split.producers if data.nodes[name].kind == "generate"), None)
        before, after = source.metrics if source else {}, split.metrics
        left_out = Counter(before.get("left_out", {})) + Counter(after.get("left_out", {}))
        counts = [_count(values.get(key)) for values, key in ((before, "rows_in"), (before, "rows_out"))]
        rows.append([split.name, counts[0], _reasons(left_out), counts[1], *(_count(after.get(key)) for key in _SPLITS)])
        if counted := {part: after[part] for part in _SPLITS if isinstance(after.get(part), int)}:
            drawn[split.name.removeprefix("split-")] = counted | {"left out": left_out.total()}
    columns = ("step", "rows in", "left out", "rows generated", *_SPLITS)
    blocks: list[Block] = [Table("From source to splits (–: not built yet)", columns, rows)] if rows else [_missing("splits")]
    if drawn and len(drawn) <= _TASKS_DRAWN:
        blocks.insert(0, Picture("funnel", "Rows of each task, by what became of them", pictures.bars("funnel", drawn)))
    evaluated = [
        [
            node.name,
            task,
            *(_count(values.get(key)) for key in ("rows_in",)),
            _reasons(values.get("left_out", {})),
            _count(values.get("rows_out")),
        ]
        for node in data.built("predict")
        for task, values in _by_task(node.metrics)
    ]
    paired = [
        [
            node.name,
            *(_count(node.metrics.get(key)) for key in ("prompts", "pairs")),
            _reasons(node.metrics.get("left_out", {})),
            *(_number(node.metrics.get(key)) for key in ("margin", "chosen_tokens", "rejected_tokens")),
        ]
        for node in data.built("pair")
    ]
    blocks += [Table("Answered rows", _EVALUATED_COLUMNS, evaluated)] if evaluated else []
    return [*blocks, Table("Pairs made of answers", _PAIR_COLUMNS, paired)] if paired else blocks


def _by_task(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(task, values) for task, values in metrics.items() if isinstance(values, dict)]


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "none"


_MIXTURE_COLUMNS = ("experiment", "task", "rows", "tokens", "supervised", "share of rows", "of tokens", "of supervised", "passes")


def _mixture(data: ReportData) -> list[Block]:
    rows = [
        [
            node.name.removeprefix("mix-"),
            task,
            *(_count(values.get(key)) for key in ("rows", "tokens", "supervised_tokens")),
            *(_percent(values.get(f"share_of_{key}")) for key in ("rows", "tokens", "supervised_tokens")),
            _number(values.get("passes")),
        ]
        for node in data.built("mix")
        for task, values in _by_task(node.metrics.get("tasks", {}))
    ]
    return [Table("Composition of each mixture, by task", _MIXTURE_COLUMNS, rows)] if rows else [_missing("mixtures")]


_FILES_DRAWN = 12
"""Token files whose lengths are drawn and whose rows are shown; the colours of more would repeat, and the page grow with them."""
_TOKEN_COLUMNS = ("step", "split", "rows in", "left out", "rows out", "truncated", "tokens", "supervised", "share", "longest")


def _tokens(data: ReportData) -> list[Block]:
    """Counts of every token file, then the first rows of each as training sees them."""
    built = data.built("tokenize")
    rows = []
    for node in built:
        for split, values in _by_task(node.metrics):
            tokens, learned = values.get("tokens"), values.get("supervised_tokens")
            share = _percent(learned / tokens if tokens and learned is not None else None)
            counts = [_count(values.get(key)) for key in ("rows_out", "truncated", "tokens", "supervised_tokens")]
            rows.append(
                [
                    node.name,
                    split,
                    _count(values.get("rows_in")),
                    _reasons(values.get("left_out", {})),
                    *counts,
                    share,
                    _count(values.get("longest")),
                ]
            )
    if not rows:
        return [_missing("token files")]
    lengths = {node.name.removeprefix("tokenize-"): found for node in built[:_FILES_DRAWN] if (found := row_lengths(data, node))}
    drawn: list[Block] = []
    more = len(built) - _FILES_DRAWN
    if lengths:
        caption = "Lengths of the rows that are trained on, in tokens" + (
            f" ({_FILES_DRAWN} of {len(built)} token files)" if len(built) > _FILES_DRAWN else ""
        )
        drawn.append(Picture("lengths", caption, pictures.histogram("lengths", lengths)))
    return [
        *drawn,
        Table("Token files", _TOKEN_COLUMNS, rows),
        Remark(_MARKED),
        *(block for node in built[:_FILES_DRAWN] for block in _token_rows(data, node)),
        *([Remark(f"… {more} more token files; to see rows of one: engine preview SPEC TASK")] if more > 0 else []),
    ]


_MARKED = "Supervised tokens, which count in the loss, are coloured and underlined in the rows below; in Markdown they are bold."


def _token_rows(data: ReportData, node: Node) -> list[Block]:
    found = token_rows(data, node)
    if found is None:
        return [Remark(f"{node.name}: no rows shown, since its token file or its tokenizer.json is missing.")]
    cut = [[(f" … ({row.more:,} more tokens)", False)] if row.more else [] for row in found]
    return [TokenRow(f"{node.name}, train row {number}", [*row.pieces, *cut[number]]) for number, row in enumerate(found)]


_CURVES_SHOWN = 12
"""Trainings with a picture of their own; of more, only the picture of all is drawn, so that the page stays small."""


def _losses(data: ReportData) -> list[Block]:
    """The training losses of all experiments in one picture, then each with its validation losses."""
    found = {node.name: losses(data.root, node) for node in data.of("train")}
    curves = {name.removeprefix("train-"): one["loss"] for name, one in found.items() if "loss" in one}
    blocks: list[Block] = []
    if len(curves) > 1:
        caption = f"Training loss of {len(curves)} experiments, smoothed"
        caption += "; the page names the curves at the pointer" if len(curves) > pictures.MOST_NAMED else ""
        blocks.append(
            Picture("loss-all", caption, pictures.curves("loss-all", {name: smoothed(one) for name, one in curves.items()}, log=True))
        )
    for node in data.of("train"):
        if not found[node.name]:
            blocks.append(_missing(f"loss curve of {node.name}", f"engine build {node.name}"))
        elif len(curves) <= _CURVES_SHOWN:
            values = node.metrics.get("validation_loss", {})
            by_task = values if isinstance(values, dict) else {"": values}
            last = ", ".join(f"{task} {_number(value, 3)}".strip() for task, value in by_task.items())
            caption = f"{node.name}: {_count(node.metrics.get('steps'))} optimizer steps; final validation loss: {last or '–'}"
            blocks.append(Picture(f"loss-{node.name}", caption, pictures.curves(f"loss-{node.name}", found[node.name])))
            blocks += _measures(data, node)
    return blocks or [Remark("No model is trained.")]


def _measures(data: ReportData, node: Node) -> list[Block]:
    """What the objective of a training measured in its steps, one picture for each unit; none for supervised training."""
    found = measures(data.root, node)
    blocks: list[Block] = []
    for kind, (unit, columns) in _MEASURED.items():
        name = f"{kind}-{node.name}"
        if drawn := {column.replace("_", " "): smoothed(found[column]) for column in columns if column in found}:
            blocks.append(Picture(name, f"{node.name}: {', '.join(drawn)} in training", pictures.curves(name, drawn, unit)))
    return blocks


_MEASURED = {
    "rewards": ("reward", ("chosen_reward", "rejected_reward", "margin")),
    "shares": ("share", ("accuracy", "agreement")),
    "divergence": ("nats", ("kl", "cross_entropy")),
}
"""What trainings measure besides the loss, by unit."""


def _metrics(data: ReportData) -> list[str]:
    """Every metric that was measured, the main one first."""
    names = {name: None for r in data.results for values in r.scores.values() for name, value in values.items() if isinstance(value, float)}
    return (
        [main, *(name for name in names if name != main)] if data.results and (main := chosen_metric(data.results, None)) in names else []
    )


def _scores(data: ReportData) -> list[Block]:
    names = _metrics(data)
    blocks: list[Block] = []
    for name in names:
        columns, rows = score_table(data.results, name, intervals=True)
        blocks.append(Table(f"{name} on held-out rows [interval]", columns, rows))
        if marks := legend(data.results, name):
            blocks.append(Remark(marks))
        columns, rows, tested = comparison_table(data.results, name)
        if rows:
            blocks += [Table(f"Differences in {name} on the same rows", columns, rows), Remark(tested)]
    blocks += map(Remark, ignored_text(data.results))
    if taken := benchmark_table(data.results):
        blocks.append(Table("Benchmarks", BENCHMARK_COLUMNS, taken))
    done = {result.experiment for result in data.results}
    missing = [_missing(f"scores of {one.name}", f"engine build {one.spec}") for one in data.experiments if one.name not in done]
    return [*blocks, *missing] or [Remark("There are no experiments.")]


def _learned(data: ReportData) -> list[Section]:
    """What preferences or a teacher taught, on held-out rows and elsewhere; no section if all trainings are supervised."""
    tables = held_out_tables(data.results)
    blocks = [block for one in tables for block in (Table(one.title.capitalize(), one.columns, one.rows), Remark(one.legend))]
    blocks += [Remark(f"Warning: {one.what}. To try: {one.hint}.") for result in data.results for one in result.warnings]
    return [Section("learned", "Preferences and teachers", blocks)] if blocks else []


_BASE_OF = "base of "


def _sweeps(data: ReportData, metrics: list[str]) -> list[Section]:
    """One section if any spec has a sweep, else none; METRICS are the measured ones, the main one first."""
    blocks = [block for sweep in data.sweeps for block in _sweep(sweep, metrics[0] if metrics else VALIDATION_LOSS)]
    return [Section("sweeps", "Sweeps", blocks)] if blocks else []


def _sweep(sweep: Sweep, main: str) -> list[Block]:
    if not sweep.metrics:
        return [Remark(f"Not built yet: the points of {sweep.name}. Run: engine build {sweep.spec}")]
    shown = main if main in sweep.metrics else sweep.metrics[0]
    blocks: list[Block] = [Table(f"{sweep.name}: {shown} by point [interval]", *sweep_table(sweep, shown))]
    # A plot against seeds shows no trend: if other fields are swept too, the seed only separates lines.
    for field in [field for field in sweep.fields if field != SEED] or sweep.fields:
        for metric in dict.fromkeys((shown, VALIDATION_LOSS)):
            if found := [line for line in lines(sweep, field, metric) if line.points]:
                name = f"sweep-{sweep.name}-{field.replace('.', '-')}-{metric}"
                caption = f"{sweep.name}: {metric} against {field}, one line per task and combination of the other fields"
                blocks.append(Picture(name, caption, pictures.against(name, field, metric, found)))
    return blocks


def _across(data: ReportData, metric: str) -> list[Block]:
    """METRIC of every model on every task: experiments, then the models they were compared with."""
    rows = {r.experiment: {task: float(v[metric]) for task, v in r.scores.items() if metric in v} for r in data.results}
    # In every experiment `base` is another name of some model, that of an experiment or one that several share.
    experiments = {_model(data, path): own for own, role, _, path in _answered(data) if role == "predictions"}
    compared = {(own, task): _model(data, path) for own, role, task, path in _answered(data) if role == "base"}
    sharing: dict[object, list[str]] = {}
    for (own, _), model in compared.items():
        if own not in sharing.setdefault(model, []):
            sharing[model].append(own)
    for node in data.of("evaluate"):
        own = node.name.removeprefix("evaluate-")
        for one in scores(data.root, node):
            if one["metric"] != metric or not one["value"] or one["score"] == f"{one['task']} {one['metric']}":
                continue  # the model's own values are among the results
            name = one["model"]
            if name == "base":
                model = compared.get((own, one["task"]))
                name = experiments.get(model) or _BASE_OF + _some(sharing.get(model, [own]))
            rows.setdefault(name, {}).setdefault(one["task"], float(one["value"]))
    known = {model: values for model, values in rows.items() if values}
    caption = f"{metric} of models (rows) on the held-out rows of tasks (columns)"
    return [Picture("heat-map", caption, pictures.heat_map("heat-map", known))] if known else []


def _answered(data: ReportData) -> Iterator[tuple[str, str, str, str]]:
    """Every file of answers that an evaluation reads: its experiment, `predictions` or the name of another model, task and path."""
    for node in data.of("evaluate"):
        own = node.name.removeprefix("evaluate-")
        for role, path in node.inputs.items():
            first, _, rest = role.partition("/")
            model, _, task = rest.partition("/")
            if first == "predictions":
                yield own, first, rest, path
            elif first == "compare":
                yield own, model, task, path


def _model(data: ReportData, path: str) -> object:
    """What identifies the model whose answers are in the file PATH: what its step reads besides rows."""
    step = data.nodes.get(PurePosixPath(path).parent.name)
    read = {(role, place) for role, place in (step.inputs if step else {}).items() if role.partition("/")[0] not in _SPLITS}
    return frozenset(read) or path


_NAMED = 3
"""Of more experiments that share a base, a label has the first ones."""


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _answers(data: ReportData) -> list[Block]:
    """The first rows of every task, each with the predictions of all models."""
    files: dict[str, dict[str, str]] = {}
    for own, model, task, path in _answered(data):
        if model == "predictions":
            files.setdefault(task, {})[own] = path
        else:
            files.setdefault(task, {}).setdefault(f"{_BASE_OF}{own}" if model == "base" else model, path)
    if not files:
        return [Remark("No experiment is evaluated.")]
    found = {task: _side_by_side(data, task, paths, _ANSWER_BYTES // len(files)) for task, paths in files.items()}
    blocks: list[Block] = [
        AnswerRows(task, rows, ROWS_SHOWN) if rows else _missing(f"predictions on {task}") for task, rows in found.items()
    ]
    if tasks := [task for task, rows in found.items() if rows]:
        models = dict.fromkeys(model for rows in found.values() for row in rows for model, _ in row.answers)
        blocks = [Remark("Words of an answer that its reference does not have there are marked."), Filter(tasks, [*models]), *blocks]
    return blocks


_ROWS_KEPT = 50
"""Rows of each task that a reader can search."""
_ANSWER_BYTES = 2_000_000
"""About as many bytes of the page are answers: with many experiments and long answers it has fewer rows."""
_LONGEST = 4_000
"""Characters of a prompt or an answer; longer ones are cut."""


def _side_by_side(data: ReportData, task: str, paths: Mapping[str, str], room: int) -> list[Answers]:
    """The first rows of TASK with the predictions at PATHS, by model: as many as fill ROOM bytes, but at least those that a page shows."""
    shown: dict[str, Mapping[str, Any]] = {}
    answers: dict[str, list[tuple[str, str]]] = {}
    # Experiments with the same base share one file of its predictions; if the base is an experiment, it has that experiment's name.
    names: dict[str, list[str]] = {}
    for model, path in paths.items():
        names.setdefault(path, []).append(model)
    models = {path: [one for one in found if not one.startswith(_BASE_OF)] for path, found in names.items()}
    for path, found in names.items():
        model = _some(models[path]) or _BASE_OF + _some([one.removeprefix(_BASE_OF) for one in found])
        first, sought = not shown, set(shown)
        for row in predictions(data.root, path, _ROWS_KEPT if first else None):
            if first:
                shown[row["id"]] = row
            elif row["id"] not in sought:
                continue
            answers.setdefault(row["id"], []).append((model, (row.get("answer") or "").strip()))
            sought.discard(row["id"])
            if not first and not sought:
                break
    rows: list[Answers] = []
    for key, said in shown.items():
        references = [text.strip() for text in said.get("references") or [str(said.get("reference") or "")]]
        marked = [(model, _differing(_cut(references[0]), _cut(answer))) for model, answer in answers[key]]
        prompt, reference = _cut(str(said.get("prompt") or "")), _cut("\n".join(references))
        room -= len(prompt) + len(reference) + sum(len(text) + _MARK for _, pieces in marked for text, _ in pieces)
        if room < 0 and len(rows) >= ROWS_SHOWN:
            break
        right = {text.strip() for text in references if text}
        differing = [model for model, answer in answers[key] if right and answer.strip() not in right]
        rows.append(Answers(f"{task}, row {key}", prompt, reference, marked, differing))
    return rows


_MARK = 35
"""About as many bytes are the markup of a piece of an answer."""


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST:,} more characters)"


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words both begin with."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _differing(reference: str, answer: str) -> list[tuple[str, bool]]:
    """ANSWER in pieces, each with whether it differs from REFERENCE; space between two words that differ does too."""
    if not reference or answer == reference:
        return [(answer, False)]
    wanted, given = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (reference, answer))
    begin = _alike(wanted, given)
    rest = _alike(wanted[begin:][::-1], given[begin:][::-1])
    middle = given[begin : len(given) - rest]
    # Of more than 200 words, those that come up all the time begin no match: an answer that repeats itself would take minutes.
    matcher = SequenceMatcher(None, wanted[begin : len(wanted) - rest], middle)
    parts = [("".join(given[:begin]), False)]
    parts += [("".join(middle[start:end]), kind != "equal") for kind, _, _, start, end in matcher.get_opcodes()]
    found: list[tuple[str, bool]] = []
    for text, differs in (*parts, ("".join(given[len(given) - rest :]), False)):
        if found and text and found[-1][1] == differs:
            text = found.pop()[0] + text
        if differs and len(found) > 1 and found[-1][0].isspace() and found[-2][1]:
            text = found.pop(-2)[0] + found.pop()[0] + text
        if text:
            found.append((text, differs))
    return found


_COST_COLUMNS = (
    "step",
    "seconds",
    "training s",
    "tokens/s",
    "peak memory",
    "training memory",
    "estimate",
    "training / estimate",
    "machine",
)


def _cost(data: ReportData) -> list[Block]:
    """Times and memory from run records: of the run that made the artifact, on whichever machine."""
    rows, total = [], 0.0
    for node in data.nodes.values():
        if node.ran is None:
            continue
        measured, machine = node.ran.measured, node.ran.machine
        total += measured.get("seconds", 0.0)
        peak, guess = measured.get("peak_memory_bytes"), measured.get("estimated", {}).get("total") or node.estimated_bytes
        numbers = [_number(measured.get(key), 1) for key in ("seconds", "training_seconds", "tokens_per_second")]
        own = needed(measured) if peak else None
        memory = [_bytes(peak), _bytes(own), _bytes(guess), _number(own / guess if own and guess else None)]
        rows.append([node.name, *numbers, *memory, f"{machine.get('cores', '?')} cores, {machine.get('platform', '?')}"])
    if not rows:
        return [_missing("steps")]
    remark = Remark(
        f"Total: {total:,.1f} s. Peak memory is that of the whole process, libraries included; training memory is that of model, "
        "gradients, optimizer and activations, which is what the estimate, as in the plan, covers."
    )
    return [Table("Steps", _COST_COLUMNS, rows), remark]


def _rebuild(data: ReportData) -> list[Block]:
    """The commands from a checkout of the code to the verification of every digest."""
    commits = Counter(node.ran.git_commit for node in data.nodes.values() if node.ran and node.ran.git_commit)
    lines = [f"git checkout {commit}" for commit, _ in commits.most_common(1)]
    if (data.root / "requirements-devices.lock").exists():
        lines.append("make setup")
    elif (data.root / LOCK).exists():
        lines.append(f"pip install adapterbuild=={__version__} -r {LOCK}")
    else:
        lines.append(f"pip install -r {REQUIREMENTS}")
    lines += [
        "engine check",
        *(f"engine build {shlex.quote(one.spec)}" for one in data.experiments),
        *(f"engine verify {one.step}" for one in data.experiments),
    ]
    blocks: list[Block] = [Commands(lines)]
    if len(commits) > 1:
        named = ", ".join(f"{commit} ({count} steps)" for commit, count in commits.most_common())
        blocks.append(Remark(f"The artifacts were built at several commits: {named}."))
    return blocks if commits else [*blocks, Remark("No run record names a commit: commit the workspace before a build to record one.")]


def _count(value: Any) -> str:
    return "–" if value is None else f"{value:,}"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "–"
    unit, size = next(((unit, size) for unit, size in _UNITS if value >= size), _UNITS[-1])
    return f"{value / size:,.2f} {unit}"
