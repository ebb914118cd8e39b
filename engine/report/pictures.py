"""The report's pictures as SVG: graph, loss curves, heat map and sweep plots; equal values give equal bytes."""

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.report.graph_drawing import layers
from engine.spec.notation import toml

if TYPE_CHECKING:
    from engine.report.collect import Node
    from engine.results.sweeps import Line

_INK = "#010203"
"""Placeholder for the page's text colour, which is currentColor in SVG."""
_GROUND = "#030201"
"""Placeholder for the page's background colour."""
COLOURS = {"keep": "#2e8b57", "restore": "#3b7dd8", "run": "#cf7a22", "maybe": "#9467bd"}
"""By plan action; legible on light and dark backgrounds."""
LINES = ("#3b7dd8", "#cf7a22", "#2e8b57", "#c44e52", "#9467bd", "#8c6d3f", "#d16fb0", "#6f7b87")
"""Of curves; as legible."""
_MOST_POINTS = 2000
"""Of a curve; of more, matplotlib leaves out those that no pixel shows."""
MOST_NAMED = 24
"""Curves of a picture with a legend; that of more would leave no room for the curves."""
_NAMES_BELOW = 12
"""Names below each other in a legend beside the axes."""
_MOST_STEPS = 80
"""A graph with more steps is drawn by kind."""
_BOX = 0.34
"""Height of a step's box, inches."""


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of WIDTH × HEIGHT inches without a window, in the page's colours."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_settings("report")):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
    return figure, axes


def _settings(name: str) -> dict[str, Any]:
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return dict.fromkeys(inks, _INK) | {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,
    }


def _legend(axes: Any, outside: int = 0) -> None:
    """A legend within the axes or, with OUTSIDE entries, to the right of them; none if there are too many."""
    if len(axes.get_legend_handles_labels()[1]) > MOST_NAMED:
        return
    columns = -(-outside // _NAMES_BELOW)
    more: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "ncols": columns} if outside else {}
    axes.legend(fontsize=8, frameon=False, labelcolor=_INK, **more)


def _svg(figure: Any, name: str) -> str:
    """The picture as an element of a page: without XML header, date and creator, and with unique ids."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_settings(name)):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_GROUND, "var(--ground, #ffffff)")
    # A page has several pictures, whose ids must differ.
    for before in (' id="', "url(#", 'href="#'):
        text = text.replace(before, f"{before}{name}-")
    # The style of a page for narrow windows reads how wide the picture is by itself.
    return re.sub(r'<svg (.*?width="([\d.]+)pt")', r'<svg style="--width: \2pt" \1', text, count=1)


def graph(nodes: "Mapping[str, Node]") -> str:
    """The steps in layers from left to right, coloured by plan action."""
    edges = {name: node.producers for name, node in nodes.items()}
    actions = {name: node.action for name, node in nodes.items()}
    if len(nodes) > _MOST_STEPS:
        edges, actions = _by_kind(nodes)
    columns = layers(edges)
    width, height = (max(0.085 * max(map(len, layer)) + 0.25 for layer in columns) + 0.45), _BOX * 1.5
    deepest = max(map(len, columns))
    figure, axes = _figure(width * len(columns), height * deepest + 0.3)
    places = {
        name: (column * width, -height * (row + (deepest - len(layer)) / 2))
        for column, layer in enumerate(columns)
        for row, name in enumerate(layer)
    }
    for name, producers in edges.items():
        for producer in producers:
            _edge(axes, places[producer], places[name], width - 0.45)
    for name, place in places.items():
        _box(axes, name, place, width - 0.45, COLOURS[actions[name]])
    axes.set(xlim=(-0.1, width * len(columns) - 0.35), ylim=(-height * deepest + _BOX / 2, _BOX))
    axes.axis("off")
    return _svg(figure, "graph")


def _by_kind(nodes: "Mapping[str, Node]") -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Edges and actions of a graph with one box per kind, with its number of steps; its action is the most costly of its steps."""
    members: dict[str, list[Node]] = {}
    for node in nodes.values():
        members.setdefault(node.kind, []).append(node)
    titles = {kind: f"{len(found)} × {kind}" for kind, found in members.items()}
    order, edges = list(members), {}
    for kind, found in members.items():
        before = {nodes[p].kind for node in found for p in node.producers}
        # A kind that reads itself (adapters that continue others) or a later kind would make a cycle.
        edges[titles[kind]] = tuple(titles[other] for other in order if other in before and order.index(other) < order.index(kind))
    return edges, {titles[kind]: max((n.action for n in found), key=list(COLOURS).index) for kind, found in members.items()}


def _edge(axes: Any, start: tuple[float, float], end: tuple[float, float], width: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (x, y), (to_x, to_y) = (start[0] + width, start[1]), end
    bend = min(0.4, (to_x - x) / 2)
    path = Path([(x, y), (x + bend, y), (to_x - bend, to_y), (to_x, to_y)], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axes.add_patch(PathPatch(path, fill=False, edgecolor=_INK, alpha=0.35, linewidth=0.8))


def _box(axes: Any, name: str, place: tuple[float, float], width: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    corner = (place[0], place[1] - _BOX / 2)
    axes.add_patch(Rectangle(corner, width, _BOX, facecolor=_GROUND, edgecolor=colour, linewidth=1.8, zorder=2))
    axes.text(place[0] + width / 2, place[1], name, ha="center", va="center", fontsize=8, color=_INK, zorder=3)


def curves(
    name: str, found: Mapping[str, Sequence[tuple[float, float]]], unit: str = "loss (nats per supervised token)", log: bool = False
) -> str:
    """Loss, or what else is measured in UNIT, against optimizer step, one line for each of FOUND.

    LOG: on a logarithmic axis, if they span a decade.

    The picture says where its axes lie and what they span, so that the page's script can tell the values at the pointer from the lines.
    """
    figure, axes = _figure(7.6 if log else 5.6, 3.0)
    drawn = []
    for number, (label, points) in enumerate(found.items()):
        style = {"marker": "o", "markersize": 3} if len(points) < 12 else {}
        line = axes.plot(*zip(*points, strict=True), label=_word(label), color=LINES[number % len(LINES)], linewidth=1.4, **style)[0]
        line.set_gid(f"curve-{number}")
        # Every point stays one, unless there are far more than pixels.
        line.get_path().should_simplify = len(points) > _MOST_POINTS
        drawn.append({"id": f"{name}-curve-{number}", "label": label, "colour": line.get_color()})
    axes.set(xlabel="optimizer step", ylabel=unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    values = [value for points in found.values() for _, value in points]
    if log and min(values) > 0 and max(values) >= 10 * min(values):  # within a decade a logarithmic axis has no round numbers
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.grid(alpha=0.25)
    if log:
        _legend(axes, len(found))
    elif len(found) > 1:
        _legend(axes)
    text = _svg(figure, name)
    # The layout is known once it is drawn. SVG counts points (1/72 inch) from the top.
    (width, height), box = figure.get_size_inches() * 72, axes.get_position()
    plot = {
        "left": round(box.x0 * width, 3),
        "right": round(box.x1 * width, 3),
        "top": round((1 - box.y1) * height, 3),
        "bottom": round((1 - box.y0) * height, 3),
        "x": axes.get_xlim(),
        "y": axes.get_ylim(),
        "log": axes.get_yscale() == "log",
        "curves": drawn,
    }
    return text.replace("<svg", f'<svg data-plot="{html.escape(json.dumps(plot))}"', 1)


def histogram(name: str, found: Mapping[str, Sequence[int]]) -> str:
    """How the lengths of rows are distributed: the outline of a histogram for each of FOUND, lengths in tokens by label."""
    import numpy as np

    figure, axes = _figure(7.6, 2.6)
    longest = max(max(lengths) for lengths in found.values())
    bins = np.linspace(0, longest + 1, min(40, longest + 1) + 1)
    for number, (label, lengths) in enumerate(found.items()):
        counts, _ = np.histogram(lengths, bins)
        axes.stairs(counts / len(lengths), bins, label=_word(label), color=LINES[number % len(LINES)], linewidth=1.4)
    axes.set(xlabel="tokens", ylabel="share of rows", xlim=(0, longest + 1), ylim=(0, None))
    axes.grid(alpha=0.25)
    _legend(axes, len(found))
    return _svg(figure, name)


def bars(name: str, rows: Mapping[str, Mapping[str, int]]) -> str:
    """What ROWS are divided into, as parts of one bar each; parts that every row has are drawn in the same order and colour."""
    parts = list(dict.fromkeys(part for values in rows.values() for part, count in values.items() if count))
    figure, axes = _figure(7.6, 0.8 + 0.3 * len(rows))
    for y, values in enumerate(rows.values()):
        begin = 0
        for part in parts:
            count = values.get(part, 0)
            colour = LINES[parts.index(part) % len(LINES)]
            axes.barh(y, count, left=begin, height=0.6, color=colour, label=part if y == 0 else None)
            begin += count
    axes.set(xlabel="rows", ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _legend(axes, len(parts))
    return _svg(figure, name)


def heat_map(name: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Values of models (rows) on tasks (columns); a cell without a value stays empty."""
    tasks = list(dict.fromkeys(task for values in rows.values() for task in values))
    figure, axes = _figure(2.0 + 0.95 * len(tasks), 0.9 + 0.42 * len(rows))
    known = [value for values in rows.values() for value in values.values()]
    low, high = min([0.0, *known]), max([*known, 1e-9])
    for y, values in enumerate(rows.values()):
        for x, task in enumerate(tasks):
            if task in values:
                share = (values[task] - low) / (high - low)
                _cell(axes, x, y, share, f"{values[task]:.2f}")
    axes.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(tasks)), tasks, rotation=30 if max(map(len, tasks)) > 10 else 0)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return _svg(figure, name)


def _cell(axes: Any, x: int, y: int, share: float, text: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=COLOURS["restore"], alpha=0.08 + 0.52 * share, linewidth=0))
    axes.text(x, y, text, ha="center", va="center", color=_INK)


def against(name: str, field: str, metric: str, found: "Sequence[Line]") -> str:
    """A metric against a swept field, one line for each of FOUND, with intervals if there are any; texts have a categorical axis."""
    figure, axes = _figure(5.6, 3.0)
    values: list[Any] = list(dict.fromkeys(value if _is_number(value) else _word(value) for line in found for value, _ in line.points))
    numeric = all(_is_number(value) for value in values)
    for number, line in enumerate(found):
        points = sorted(line.points, key=lambda point: point[0]) if numeric else line.points
        xs = [value if numeric else values.index(value if _is_number(value) else _word(value)) for value, _ in points]
        ys = [measured.value for _, measured in points]
        below = [measured.value - (measured.value if measured.low is None else measured.low) for _, measured in points]
        above = [(measured.value if measured.high is None else measured.high) - measured.value for _, measured in points]
        style = {"marker": "o", "markersize": 3, "linewidth": 1.4, "capsize": 2, "elinewidth": 0.8}
        # A percentile interval may exclude its value by a rounding error.
        around = [[max(0.0, width) for width in widths] for widths in (below, above)]
        axes.errorbar(xs, ys, yerr=around, label=line.label, color=LINES[number % len(LINES)], **style)
    if not numeric:
        axes.set_xticks(range(len(values)), [str(value) for value in values])
    elif min(values) > 0 and max(values) / min(values) >= 8:
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    axes.set(xlabel=field, ylabel=metric)
    axes.grid(alpha=0.25)
    if len(found) > 1:
        _legend(axes)
    return _svg(figure, name)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(value: object) -> str:
    text = value if isinstance(value, str) else toml(value)
    return text if len(text) <= 24 else f"{text[:23]}…"
