"""The sections of the report, one function each; what was not built yet is said, with the command that builds it."""

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from engine.core.digests import short
from engine.estimate.measured import needed
from engine.identity.environment import LOCK, REQUIREMENTS
from engine.report import pictures
from engine.report.blocks import Answers, Block, Commands, Picture, Remark, Section, Table, TokenRow
from engine.report.collect import ROWS_SHOWN, Matter, Node, losses, predictions, scores, token_rows
from engine.report.sweep_section import sweep_section
from engine.results.table import BENCHMARK_COLUMNS, COMPARISON_COLUMNS, benchmark_table, chosen_metric, comparison_table, score_table

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def sections(matter: Matter) -> list[Section]:
    """The whole report, in order of the road from data to cost."""
    return [
        Section("built", "What was built", _built(matter)),
        Section("graph", "The plan's graph", _graph(matter)),
        Section("funnel", "Data funnel", _funnel(matter)),
        Section("mixture", "Mixture", _mixture(matter)),
        Section("tokens", "Tokens and labels", _tokens(matter)),
        Section("loss", "Loss curves", _losses(matter)),
        Section("scores", "Comparison", _scores(matter)),
        *sweep_section(matter, _metrics(matter)),
        Section("heat-map", "Across tasks", _across(matter)),
        Section("answers", "Sample predictions", _answers(matter)),
        Section("cost", "Cost", _cost(matter)),
        Section("rebuild", "Build it again", _rebuild(matter)),
    ]


def _missing(what: str, command: str = "engine build") -> Remark:
    return Remark(f"Not built yet: {what}. Run: {command}")


def _built(matter: Matter) -> list[Block]:
    """Experiments with their content addresses, then every step with its own."""
    rows = []
    for one in matter.experiments:
        node = matter.nodes.get(one.step)
        metrics = node.metrics if node else {}
        sizes = [_count(metrics.get(key)) for key in ("trainable_parameters", "parameters")]
        rows.append([one.name, ", ".join(one.tasks), one.method, *sizes, _state(node), one.spec, _digest(node, whole=True)])
    columns = ("experiment", "trained on", "method", "trainable", "parameters", "state", "spec", "content address")
    blocks: list[Block] = [Table("Experiments", columns, rows)]
    waiting = [node for node in matter.nodes.values() if node.action != "keep"]
    if waiting:
        named = ", ".join(node.name for node in waiting[:10]) + (", …" if len(waiting) > 10 else "")
        blocks.append(Remark(f"Of {len(matter.nodes)} steps {len(waiting)} are not what the specs, code and data say now: {named}."))
    steps = [
        [node.name, node.kind, node.action, _digest(node), short(node.provenance.identity) if node.provenance else "–"]
        for node in matter.nodes.values()
    ]
    return [*blocks, Table("Steps", ("step", "kind", "plan", "content address", "identity"), steps)]


def _digest(node: Node | None, whole: bool = False) -> str:
    if node is None or node.provenance is None:
        return "not built"
    return node.provenance.digest if whole else short(node.provenance.digest)


def _state(node: Node | None) -> str:
    if node is None or node.provenance is None:
        return "not built"
    return "current" if node.action == "keep" else f"stale (plan: {node.action})"


def _graph(matter: Matter) -> list[Block]:
    if not matter.nodes:
        return [Remark("There are no steps.")]
    counts = Counter(node.action for node in matter.nodes.values())
    said = ", ".join(f"{counts[action]} {action}" for action in pictures.COLOURS if counts[action])
    return [Picture("graph", f"{len(matter.nodes)} steps: {said}. {_LEGEND}", pictures.graph(matter.nodes))]


_LEGEND = "Green: up to date; blue: restored from the cache; orange: would run; violet: depends on what runs before it."


def _funnel(matter: Matter) -> list[Block]:
    """A row a split: what came in, what was left out on the way, and what became of the rest."""
    rows = []
    for split in matter.of("split"):
        source = next((matter.nodes[name] for name in split.producers if matter.nodes[name].kind == "generate"), None)
        before, after = source.metrics if source else {}, split.metrics
        left_out = Counter(before.get("left_out", {})) + Counter(after.get("left_out", {}))
        counts = [_count(values.get(key)) for values, key in ((before, "rows_in"), (before, "rows_out"))]
        rows.append(
            [split.name, counts[0], _reasons(left_out), counts[1], *(_count(after.get(key)) for key in ("train", "validation", "test"))]
        )
    columns = ("task", "rows in", "left out", "rows made", "train", "validation", "test")
    blocks: list[Block] = [Table("From the source to the splits; – is not built yet", columns, rows)] if rows else [_missing("no split")]
    asked = [
        [
            node.name,
            task,
            *(_count(values.get(key)) for key in ("rows_in",)),
            _reasons(values.get("left_out", {})),
            _count(values.get("rows_out")),
        ]
        for node in matter.built("predict")
        for task, values in _by_task(node.metrics)
    ]
    return [*blocks, Table("Rows that were asked", ("step", "task", "rows in", "left out", "answered"), asked)] if asked else blocks


def _by_task(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(task, values) for task, values in metrics.items() if isinstance(values, dict)]


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "none"


_MIXTURE_COLUMNS = ("experiment", "task", "rows", "tokens", "supervised", "share of rows", "of tokens", "of supervised", "passes")


def _mixture(matter: Matter) -> list[Block]:
    rows = [
        [
            node.name.removeprefix("mix-"),
            task,
            *(_count(values.get(key)) for key in ("rows", "tokens", "supervised_tokens")),
            *(_percent(values.get(f"share_of_{key}")) for key in ("rows", "tokens", "supervised_tokens")),
            _number(values.get("passes")),
        ]
        for node in matter.built("mix")
        for task, values in _by_task(node.metrics.get("tasks", {}))
    ]
    return [Table("What each training reads, task by task", _MIXTURE_COLUMNS, rows)] if rows else [_missing("no mixture")]


_TOKEN_COLUMNS = ("step", "split", "rows in", "left out", "rows out", "truncated", "tokens", "supervised", "share", "longest")


def _tokens(matter: Matter) -> list[Block]:
    """Counts of every token file, then a few rows of each as training sees them."""
    built = matter.built("tokenize")
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
        return [_missing("no token file")]
    return [Table("Token files", _TOKEN_COLUMNS, rows), Remark(_MARKED), *(block for node in built for block in _token_rows(matter, node))]


_MARKED = "In the rows below supervised tokens, those that the loss counts, are coloured and underlined; in Markdown they are bold."


def _token_rows(matter: Matter, node: Node) -> list[Block]:
    found = token_rows(matter, node)
    if found is None:
        return [Remark(f"{node.name}: its rows are not shown, for its token file or its tokenizer.json is not here.")]
    return [TokenRow(f"{node.name}, train row {number}", pieces) for number, pieces in enumerate(found)]


def _losses(matter: Matter) -> list[Block]:
    blocks: list[Block] = []
    for node in matter.of("train"):
        found = losses(matter.root, node)
        if not found:
            blocks.append(_missing(f"{node.name} has no loss curve", f"engine build {node.name}"))
            continue
        values = node.metrics.get("validation_loss", {})
        last = (
            ", ".join(f"{task} {_number(value, 3)}" for task, value in values.items()) if isinstance(values, dict) else _number(values, 3)
        )
        caption = f"{node.name}: {_count(node.metrics.get('steps'))} steps; validation loss at the end: {last or '–'}"
        blocks.append(Picture(f"loss-{node.name}", caption, pictures.curves(f"loss-{node.name}", found)))
    return blocks or [Remark("Nothing is trained.")]


def _metrics(matter: Matter) -> list[str]:
    """Every metric that was measured, the main one first."""
    names = {
        name: None for r in matter.results for values in r.scores.values() for name, value in values.items() if isinstance(value, float)
    }
    return (
        [main, *(name for name in names if name != main)]
        if matter.results and (main := chosen_metric(matter.results, None)) in names
        else []
    )


def _scores(matter: Matter) -> list[Block]:
    names, blocks = _metrics(matter), []
    for name in names:
        blocks.append(Table(f"{name} on unseen rows [interval]", *score_table(matter.results, name, intervals=True)))
        if compared := comparison_table(matter.results, name):
            blocks.append(Table(f"Differences in {name} on the same rows", COMPARISON_COLUMNS, compared))
    if taken := benchmark_table(matter.results):
        blocks.append(Table("Benchmarks", BENCHMARK_COLUMNS, taken))
    return [*blocks, *_not_evaluated(matter)] or [Remark("There are no experiments.")]


def _not_evaluated(matter: Matter) -> list[Block]:
    done = {result.experiment for result in matter.results}
    return [_missing(f"scores of {one.name}", f"engine build {one.spec}") for one in matter.experiments if one.name not in done]


_BASE_OF = "base of "


def _across(matter: Matter) -> list[Block]:
    """Every model on every task by the main metric: experiments, then those that they were compared with."""
    names = _metrics(matter)
    if not names:
        return [_missing("no experiment is evaluated")]
    rows = {r.experiment: {task: float(v[names[0]]) for task, v in r.scores.items() if names[0] in v} for r in matter.results}
    for node in matter.of("evaluate"):
        for one in scores(matter.root, node):
            if one["score"] == f"{one['task']} {one['metric']}":
                continue  # the model's own value, which is among the results
            # Two experiments may start from different bases; a model of another name is the same one everywhere.
            model = _BASE_OF + node.name.removeprefix("evaluate-") if one["model"] == "base" and "base" not in rows else one["model"]
            if one["metric"] == names[0] and one["value"]:
                rows.setdefault(model, {}).setdefault(one["task"], float(one["value"]))
    known = {model: values for model, values in rows.items() if values}
    caption = f"{names[0]}: models (rows) on the test rows of tasks (columns)"
    return [Picture("heat-map", caption, pictures.heat_map("heat-map", known))] if known else [_missing("no value to show")]


def _answers(matter: Matter) -> list[Block]:
    """The first rows of every task, each with what all models answered."""
    files: dict[str, dict[str, str]] = {}
    for node in matter.of("evaluate"):
        own = node.name.removeprefix("evaluate-")
        for role, path in node.inputs.items():
            first, _, task = role.partition("/")
            model, _, other = task.partition("/")
            if first == "predictions":
                files.setdefault(task, {})[own] = path
            elif first == "compare":
                files.setdefault(other, {}).setdefault(f"{_BASE_OF}{own}" if model == "base" else model, path)
    blocks: list[Block] = []
    for task, paths in files.items():
        found = _side_by_side(matter, task, paths)
        blocks += found or [_missing(f"answers on {task}")]
    return blocks or [Remark("No experiment is evaluated.")]


def _side_by_side(matter: Matter, task: str, paths: Mapping[str, str]) -> list[Block]:
    shown: dict[str, Mapping[str, Any]] = {}
    answers: dict[str, list[tuple[str, str]]] = {}
    # Experiments that start from the same base read one file of its answers; where the base is an experiment too, it has that name.
    models: dict[str, str] = {}
    for model, path in paths.items():
        is_base, before = model.startswith(_BASE_OF), models.get(path)
        if before is None or (before.startswith(_BASE_OF) and not is_base):
            models[path] = model
        elif before.startswith(_BASE_OF) == is_base:
            models[path] = f"{before}, {model.removeprefix(_BASE_OF)}"
    for path, model in models.items():
        for row in predictions(matter.root, path, None if shown else ROWS_SHOWN):
            if row["id"] in shown or len(shown) < ROWS_SHOWN:
                shown.setdefault(row["id"], row)
                answers.setdefault(row["id"], []).append((model, row.get("answer") or ""))
    blocks: list[Block] = []
    for key, said in shown.items():
        references = said.get("references") or [str(said.get("reference") or "")]
        blocks.append(Answers(f"{task}, row {key}", str(said.get("prompt") or ""), "\n".join(references), answers[key]))
    return blocks


_COST_COLUMNS = (
    "step",
    "seconds",
    "training s",
    "tokens/s",
    "peak memory",
    "of the training",
    "estimate",
    "training / estimate",
    "machine",
)


def _cost(matter: Matter) -> list[Block]:
    """Times and memory as run records tell them: of the run that made the artifact, wherever that was."""
    rows, total = [], 0.0
    for node in matter.nodes.values():
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
        return [_missing("no step has been run")]
    remark = Remark(
        f"{total:,.1f} s of steps in all. Peak memory is the whole process with Python and its libraries; of the training: model, "
        "gradients, optimizer and activations, which is what the estimate, as in the plan, is about."
    )
    return [Table("Steps", _COST_COLUMNS, rows), remark]


def _rebuild(matter: Matter) -> list[Block]:
    """From the commit of the code to a check of every digest."""
    commits = Counter(node.ran.git_commit for node in matter.nodes.values() if node.ran and node.ran.git_commit)
    lines = [f"git checkout {commit}" for commit, _ in commits.most_common(1)]
    lines += [
        "make setup"
        if (matter.root / "requirements-devices.lock").exists()
        else f"pip install -r {LOCK if (matter.root / LOCK).exists() else REQUIREMENTS}",
        "engine check",
        *(f"engine build {shlex.quote(one.spec)}" for one in matter.experiments),
        *(f"engine verify {one.step}" for one in matter.experiments),
    ]
    blocks: list[Block] = [Commands(lines)]
    if len(commits) > 1:
        told = ", ".join(f"{commit} ({count} steps)" for commit, count in commits.most_common())
        blocks.append(Remark(f"The artifacts were made at several commits: {told}."))
    return blocks if commits else [*blocks, Remark("No run record names a commit: build from a committed state to have one.")]


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
