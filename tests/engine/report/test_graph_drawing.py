"""The graph as text, Mermaid and SVG: every step and every edge of any graph, and the same bytes each time; nothing is resolved."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.workspace import Workspace
from engine.plan.project import Project
from engine.report.graph_drawing import as_mermaid, as_svg, as_text, layers
from tests.support.commands import engine

GOLDEN = Path(__file__).parents[2] / "golden"


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    names = draw(st.lists(st.from_regex(r"[a-z0-9_]{1,8}(-[a-z0-9_]{1,6})?", fullmatch=True), unique=True, max_size=12))
    return {
        name: tuple(draw(st.lists(st.sampled_from(names[:place]), unique=True, max_size=4)) if place else ())
        for place, name in enumerate(names)
    }


def tree_edges(text: str) -> set[tuple[str, str]]:
    """The edges that the tree shows, read off the indentation."""
    above: dict[int, str] = {}
    found = set()
    for line in text.splitlines():
        name = line.lstrip("│├└─ ").removesuffix(" (see above)")
        depth = (len(line.removesuffix(" (see above)")) - len(name)) // 3
        above[depth] = name
        if depth:
            found.add((above[depth - 1], name))
    return found


@given(graphs())
def test_each_form_shows_every_step_and_every_edge(edges: dict[str, tuple[str, ...]]):
    wanted = {(name, producer) for name, producers in edges.items() for producer in producers}
    text = as_text(edges)
    assert tree_edges(text) == wanted and {line.lstrip("│├└─ ").removesuffix(" (see above)") for line in text.splitlines()} == set(edges)
    boxes = dict(re.findall(r'^  (s\d+)\["(.*)"\]$', as_mermaid(edges), re.MULTILINE))
    arrows = re.findall(r"^  (s\d+) --> (s\d+)$", as_mermaid(edges), re.MULTILINE)
    assert sorted(boxes.values()) == sorted(edges) and {(boxes[end], boxes[start]) for start, end in arrows} == wanted
    assert len(arrows) == len(wanted)
    picture = ElementTree.fromstring(as_svg(edges))
    space = "{http://www.w3.org/2000/svg}"
    assert sorted(item.text or "" for item in picture.iter(f"{space}text")) == sorted(edges)
    assert len(list(picture.iter(f"{space}path"))) == len(wanted)


@given(graphs())
def test_no_two_boxes_of_a_picture_overlap_and_all_lie_inside(edges: dict[str, tuple[str, ...]]):
    picture = ElementTree.fromstring(as_svg(edges))
    boxes = [
        tuple(float(item.attrib[key]) for key in ("x", "y", "width", "height"))
        for item in picture.iter("{http://www.w3.org/2000/svg}rect")
        if "rx" in item.attrib
    ]
    for number, (x, y, width, height) in enumerate(boxes):
        assert x >= 0 and y >= 0 and x + width <= float(picture.attrib["width"]) and y + height <= float(picture.attrib["height"])
        for a, b, c, d in boxes[:number]:
            assert x >= a + c or a >= x + width or y >= b + d or b >= y + height
    for layer in layers(edges):
        assert not any(set(edges[name]) & set(layer) for name in layer), "what a step reads lies to its left"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace that was never compiled."""
    shutil.copytree(GOLDEN / "shared-base", tmp_path / "w", ignore=shutil.ignore_patterns("*.golden", "plan.txt"))
    return tmp_path / "w"


def test_the_verb_draws_without_compiling_or_resolving(root: Path):
    names = {step.name for step in Project(Workspace.at(root)).graph}
    for form, sign in (("text", "└─ "), ("mermaid", "flowchart LR"), ("svg", "<svg ")):
        done = engine(root, "graph", "--format", form)
        assert (done.returncode, done.stderr) == (0, "") and sign in done.stdout and "resolve" not in done.stdout
        assert all(name in done.stdout for name in names)
        assert engine(root, "graph", "-f", form).stdout == done.stdout
    assert not (root / "dvc.yaml").exists() and not (root / "artifacts").exists()


def test_the_verb_draws_what_a_step_needs_into_a_file(root: Path):
    name = next(step.name for step in Project(Workspace.at(root)).graph if step.kind_name == "train")
    done = engine(root, "graph", name, "-f", "mermaid", "-o", "graph.mmd")
    assert done.stdout == "" and "graph.mmd written" in done.stderr
    drawn = (root / "graph.mmd").read_text("utf-8")
    assert f'["{name}"]' in drawn and "evaluate-" not in drawn


def test_an_unknown_form_or_step_is_refused(root: Path):
    assert engine(root, "graph", "-f", "png").returncode == 2
    assert "error:" in engine(root, "graph", "train-nothing").stderr


def test_help_shows_every_summary_whole(root: Path):
    shown = " ".join(engine(root, "--help").stdout.partition("Commands:")[2].split())
    assert "..." not in shown
    assert "Draw the graph of steps as text, Mermaid or SVG." in shown
    assert "reports all problems at once, with file, line and hint." in shown


def test_an_arrow_over_several_layers_is_not_hidden_behind_the_boxes_between():
    picture = ElementTree.fromstring(as_svg({"a": (), "b": ("a",), "c": ("a", "b")}))
    curves = [item.attrib["d"] for item in picture.iter("{http://www.w3.org/2000/svg}path")]
    heights = [{float(pair.split()[1]) for pair in re.findall(r"[\d.]+ [\d.]+", curve)} for curve in curves]
    assert [len(found) for found in heights] == [1, 2, 1], "only the arrow from a to c leaves the row"


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("preview", "The number of rows to show."),
        ("build", "Run at most N device steps at once"),
        ("build", "Run at most N steps at once."),
    ],
)
def test_options_say_what_they_bound(root: Path, verb: str, said: str):
    assert said in " ".join(engine(root, verb, "--help").stdout.split())
