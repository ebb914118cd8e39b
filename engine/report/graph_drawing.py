"""The graph of steps as text, as Mermaid (mermaid.js.org/syntax/flowchart.html) and as SVG; without `resolve`, which is only DVC's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

from engine.core.graph import Graph

Edges = Mapping[str, Sequence[str]]
"""For each step, the steps that it reads; in topological order."""


def edges_of(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The edges of GRAPH, in its order."""
    return {step.name: step.producers for step in graph}


def layers(edges: Edges) -> list[list[str]]:
    """The names by the length of the longest path to them; within a layer, near the steps that they read."""
    depth: dict[str, int] = {}
    for name, producers in edges.items():
        depth[name] = 1 + max((depth[p] for p in producers), default=-1)
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in edges:
        found[depth[name]].append(name)
    row: dict[str, float] = {}
    for layer in found:
        layer.sort(key=lambda name: sum(row[p] for p in edges[name]) / max(1, len(edges[name])))
        row |= {name: (place + 0.5) / len(layer) for place, name in enumerate(layer)}
    return found


def as_text(edges: Edges) -> str:
    """A tree for each step that no other reads, with its inputs below it; a subtree is shown once, then marked `(see above)`."""
    read = {producer for producers in edges.values() for producer in producers}
    shown: set[str] = set()
    return "".join(f"{line}\n" for name in edges if name not in read for line in _branch(name, edges, shown, "", ""))


def _branch(name: str, edges: Edges, shown: set[str], head: str, below: str) -> Iterator[str]:
    """The line of a step, prefixed with HEAD, and the lines of its inputs, prefixed with BELOW."""
    again = name in shown and bool(edges[name])
    yield f"{head}{name}{' (see above)' if again else ''}"
    shown.add(name)
    needs = () if again else edges[name]
    for number, producer in enumerate(needs, 1):
        last = number == len(needs)
        yield from _branch(producer, edges, shown, f"{below}{'└─ ' if last else '├─ '}", f"{below}{'   ' if last else '│  '}")


def as_mermaid(edges: Edges) -> str:
    """A flowchart from left to right; nodes are numbered, since some names are reserved words of Mermaid."""
    number = {name: f"s{place}" for place, name in enumerate(edges)}
    boxes = [f'  {number[name]}["{name}"]' for name in edges]
    arrows = [f"  {number[producer]} --> {number[name]}" for name, producers in edges.items() for producer in producers]
    return "\n".join(["flowchart LR", *boxes, *arrows]) + "\n"


_CHARACTER, _BOX, _ROW, _GAP, _MARGIN, _DIP = 7.3, 22, 34, 60, 10, 24
"""In pixels: the width of a character at font size 12, the height of a box, the distance of rows, the gap between layers, the margin, and
the vertical offset of the control points of a long arrow (its middle moves by three quarters of it)."""


def as_svg(edges: Edges) -> str:
    """A picture from left to right, one column per layer; equal graphs give equal bytes."""
    columns = layers(edges)
    widths = [max(len(name) for name in layer) * _CHARACTER + 14 for layer in columns]
    deepest = max(map(len, columns), default=0)
    boxes: dict[str, tuple[float, float, float]] = {}
    left: float = _MARGIN
    for layer, width in zip(columns, widths, strict=True):
        for row, name in enumerate(layer):
            boxes[name] = (left, _MARGIN + (row + (deepest - len(layer)) / 2) * _ROW, width)
        left += width + _GAP
    full = f'width="{max(left - _GAP, _MARGIN) + _MARGIN:.1f}" height="{deepest * _ROW - (_ROW - _BOX) * bool(deepest) + 2 * _MARGIN:.1f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {full} font-family="monospace" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for name, producers in edges.items():
        x, y, _ = boxes[name]
        for producer in producers:
            start, top, width = boxes[producer]
            a, b, middle = start + width, top + _BOX / 2, y + _BOX / 2
            bend = (a + x) / 2
            # An arrow across several layers passes between two rows, since a box would hide it.
            dip = _DIP if x - a > _GAP + 1 else 0
            path = f"M{a:.1f} {b:.1f} C{bend:.1f} {b + dip:.1f} {bend:.1f} {middle + dip:.1f} {x:.1f} {middle:.1f}"
            lines.append(f'<path d="{path}" fill="none" stroke="#888"/>')
    for name, (x, y, width) in boxes.items():
        lines.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BOX}" rx="4" fill="#eef3fb" stroke="#5577aa"/>')
        lines.append(f'<text x="{x + width / 2:.1f}" y="{y + 15:.1f}" text-anchor="middle">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


FORMATS: Mapping[str, Callable[[Edges], str]] = {"text": as_text, "mermaid": as_mermaid, "svg": as_svg}
