"""The report of a real build, opened in a real browser where there is one."""

import base64
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from engine.build.driver import dvc_environment
from stages.process.progress import SECONDS_BETWEEN_LINES
from tests.end_to_end.conftest import Place
from tests.support.browser import CHROMIUM, Browser, browser

pytestmark = pytest.mark.slow

IN_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")
AXE = Path(sys.prefix) / "axe/node_modules/axe-core/axe.min.js"
"""Rules of accessibility, a tool for development (`make axe`)."""


@pytest.fixture(scope="module")
def written(built: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = built.run("engine", "report", "--output", str(folder))
    assert "report.html and report.md written" in " ".join(done.stderr.split())
    return folder


def test_the_report_of_a_build(built: Place, written: Path):
    twin = (written / "report.md").read_text()
    assert "Not built yet" not in twin
    assert re.search(r"\| one \| a \| lora \| 640 \| 8,608 \| current \| specs/one.toml \| sha256:[0-9a-f]{64} \|", twin)
    assert "| split-a | 40 | none | 40 | 27 | 3 | 10 |" in twin
    assert re.search(r"<b>w0 ?w0&lt;", twin) and "![train-two: 2 optimizer steps;" in twin
    assert f"git checkout {built.git('rev-parse', 'HEAD~1').strip()}" in twin
    page = (written / "report.html").read_text()
    assert page.count("<svg") == 7 and str(built.root) not in page


def test_the_same_state_gives_the_same_bytes(built: Place, written: Path, tmp_path: Path):
    built.run("engine", "report", "-o", str(tmp_path))
    for path in written.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes(), path


def test_one_spec(built: Place, tmp_path: Path):
    built.run("engine", "report", "specs/one.toml", "--output", str(tmp_path))
    twin = (tmp_path / "report.md").read_text()
    assert twin.startswith("# Report: one\n") and "train-one" in twin and "train-two" not in twin


PROBE = """<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), root = frame.contentDocument.documentElement
  const texts = [...frame.contentDocument.querySelectorAll("h1,h2,figcaption,.remark,.statement,summary,nav")]
    .filter(one => one.checkVisibility()).map(one => one.getBoundingClientRect())
  const over = (a, b) => a.bottom > b.top + 1 && b.bottom > a.top + 1 && a.right > b.left && b.right > a.left
  const overlaps = texts.filter((a, i) => texts.slice(i + 1).some(b => over(a, b)))
  const form = frame.contentDocument.querySelector("form.filter"), rows = [...frame.contentDocument.querySelectorAll("figure.answer")]
  const visible = () => rows.filter(one => one.checkVisibility()).length, first = visible()
  const search = words => { form.elements.search.value = words; form.dispatchEvent(new Event("input")); return visible() }
  const found = `${first} of ${rows.length} rows, ${search("SAY")} found, ${search("no such words")} without`
  const svg = frame.contentDocument.querySelector("svg[data-plot]"), box = svg.getBoundingClientRect()
  const [clientX, clientY] = [box.left + box.width / 2, box.top + box.height / 2]
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }))
  const values = svg.closest("figure").querySelector(".readout").innerText.replaceAll("\\n", " ")
  document.title = `${found}; ${values}; ${root.scrollWidth - root.clientWidth} wider, ${overlaps.length} of ${texts.length > 10} overlap`
})
</script>"""


@IN_BROWSER
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_in_a_browser(built: Place, written: Path, tmp_path: Path, width: int):
    """No message in the console, nothing wider than the window, no heading, caption or remark over another; rows are searched; a pointer
    over curves reads their values."""
    probe = tmp_path / "probe.html"
    frame = f'<iframe src="{(written / "report.html").as_uri()}" width="{width}" height="4000" style="border:0"></iframe>'
    probe.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>not run</title>{frame}{PROBE}")
    assert CHROMIUM
    switches = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --enable-logging=stderr --dump-dom".split()
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([CHROMIUM, *switches, profile, probe.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    (told,) = re.findall("<title>.*</title>", done.stdout)
    searched, values, layout = told.removeprefix("<title>").removesuffix("</title>").split("; ")
    assert re.fullmatch(r"\d of 8 rows, [1-7] found, 0 without", searched) and layout == "0 wider, 0 of true overlap", told
    _, step, *losses = values.split()
    assert losses[::2], told
    for label, value in zip(losses[::2], losses[1::2], strict=True):
        with (built.root / f"plots/train-{label.removesuffix(':')}.csv").open() as file:
            (loss,) = [float(row["loss"]) for row in csv.DictReader(file) if row["step"] == step and row["loss"]]
        assert float(value) == pytest.approx(loss, rel=1e-3), told
    assert ":CONSOLE" not in done.stderr


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as found:
        yield found


FOCUSED = """(() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect()
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1
  return [one.tagName, one.name || one.className || one.textContent.trim(), seen, box.bottom > 0 && box.top < innerHeight]
})()"""


@IN_BROWSER
def test_everything_is_reached_by_keyboard_in_order_and_the_focus_is_seen(written: Path, reader: Browser):
    reader.open(written / "report.html")
    reached = []
    for _ in range(300):
        reader.press("Tab", 9)
        tag, name, seen, inside = reader.evaluate(FOCUSED)
        if tag == "BODY":
            break
        assert seen and inside, (tag, name)
        reached.append((tag, name))
    tags = [tag for tag, _ in reached]
    links = reader.evaluate("[...document.querySelectorAll('nav a')].map(one => one.textContent.trim())")
    assert [name for tag, name in reached if tag == "A"] == links and tags[: len(links)] == ["A"] * len(links)
    assert {("INPUT", "search"), ("SELECT", "task"), ("SELECT", "model"), ("BUTTON", "Show all"), ("DIV", "box")} <= {*reached}
    folds = reader.evaluate("document.querySelectorAll('summary').length")
    assert tags.count("SUMMARY") == folds > 2, "a fold that is closed hides what is in it, and nothing else"
    boxes = reader.evaluate("[...document.querySelectorAll('.box')].filter(one => one.checkVisibility()).length")
    assert reached.count(("DIV", "box")) == boxes

    reader.evaluate("document.querySelector('details.more > summary').focus()")
    for opened in (True, False):
        reader.press("Enter", 13, "\r")
        assert reader.evaluate("document.querySelector('details.more').open") is opened
    reader.evaluate("document.querySelector('input[type=search]').focus()")
    reader.call("Input.insertText", text="no such words")
    assert reader.evaluate("document.querySelector('form.filter output').textContent").startswith("0 of ")
    assert reader.complaints == []


@IN_BROWSER
def test_the_page_prints_whole(written: Path, reader: Browser):
    reader.open(written / "report.html", width=718)  # A4 between margins of 1 cm
    shown = """[...document.querySelectorAll(QUERY)].filter(one => one.checkVisibility({contentVisibilityAuto: true})).length"""
    folded = "'section details:not(.more) table'"
    assert reader.evaluate(shown.replace("QUERY", folded)) == 0
    reader.call("Emulation.setEmulatedMedia", media="print")
    assert reader.evaluate(shown.replace("QUERY", "'nav, summary, form.filter, .readout, details.more'")) == 0
    assert reader.evaluate(shown.replace("QUERY", folded)) == reader.evaluate(f"document.querySelectorAll({folded}).length") > 0
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert reader.evaluate(wider) == 0
    pages = base64.b64decode(reader.call("Page.printToPDF", printBackground=True)["data"])
    assert pages.startswith(b"%PDF") and pages.count(b"/Type /Page\n") >= 2 and reader.complaints == []


@IN_BROWSER
def test_the_page_is_whole_without_scripts(written: Path, reader: Browser):
    reader.call("Emulation.setScriptExecutionDisabled", value=True)
    reader.open(written / "report.html")
    assert not reader.evaluate("document.querySelector('form.filter').checkVisibility()"), "a search that cannot search is not offered"
    rows, first = (reader.evaluate(f"document.querySelectorAll('{query} figure.answer').length") for query in ("", "details.more"))
    assert rows > first > 0
    for section in ("summary", "answers", "scores", "loss", "cost"):
        assert reader.evaluate(f"document.querySelector('section > #{section}').checkVisibility()"), section
    reader.evaluate("document.querySelector('details.more > summary').focus()")
    reader.press("Enter", 13, "\r")
    assert reader.evaluate("document.querySelector('details.more figure').checkVisibility()") and reader.complaints == []


@IN_BROWSER
@pytest.mark.skipif(not AXE.exists(), reason="no axe-core in the environment (make axe)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_axe_finds_nothing_to_object_to(written: Path, reader: Browser, width: int, scheme: str):
    reader.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    reader.open(written / "report.html", width)
    reader.evaluate(AXE.read_text("utf-8") + "\n;0")
    reader.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    found = reader.evaluate("axe.run().then(({violations, passes}) => [violations.map(one => [one.id, one.nodes[0].html]), passes.length])")
    assert found[0] == [] and found[1] > 15


@contextmanager
def served(place: Place) -> Iterator[str]:
    """The address at which `engine report --serve` shows PLACE."""
    command = [sys.executable, "-m", "engine", "report", "--serve", "--port", "0"]
    environment = dvc_environment() | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    with subprocess.Popen(command, cwd=place.root, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http://127.0.0.1:\d+/", server.stderr.readline())[0]
        finally:
            server.send_signal(signal.SIGINT)
        assert server.stderr.read().strip() == "ended"


STATE = """[document.querySelector('nav')?.innerText ?? '', document.querySelector('#running')?.closest('section').innerText ?? '',
    document.querySelector('#summary')?.closest('section').innerText ?? '', Math.round(scrollY)]"""


@pytest.mark.long
@IN_BROWSER
def test_an_open_page_follows_a_build_until_its_end(place: Place, reader: Browser):
    """Nobody touches the page: it says what runs, and after the end what that has changed, where its reader has scrolled to."""
    place.edit("specs/two.toml", "[mixture]", "[training]\nsteps = 4000\n\n[mixture]")
    seen: list[tuple[str, str, str, int]] = []
    moments: list[float] = []

    def look() -> tuple[str, str, str, int]:
        try:
            seen.append(tuple(reader.evaluate(STATE)))
        except RuntimeError:
            time.sleep(0.2)  # the page was being loaded again
        return seen[-1]

    with served(place) as address:
        reader.open(address)
        assert look()[1] == "" and "train-two" not in reader.evaluate("document.title")
        reader.evaluate("scrollTo(0, 700)")
        build = Thread(target=place.run, args=("engine", "build", "--jobs", "2", "score-two"))
        build.start()
        while build.is_alive():
            if "train-two" in look()[1]:
                moments.append(time.monotonic())
            time.sleep(0.05)
        told = [now for _, now, *_ in seen if "train-two" in now]
        assert told, "the training is on the page while it runs"
        # A step without a terminal says every ten seconds how far it is: on a fast machine there may be no time for it.
        steps = [int(found[1]) for now in told if (found := re.search(r"train: (\d+)/4000 steps, loss \d", now))]
        assert steps == sorted(steps)
        if moments[-1] - moments[0] > 2 * SECONDS_BETWEEN_LINES:
            assert steps and "Training loss so far" in told[-1]
        until = time.monotonic() + 60
        # What is above may have become longer, but nobody is thrown to the top, unless for the moment in which the page is loaded.
        while (look()[1] or seen[-1][3] < 700 or "16000" not in reader.evaluate("document.body.innerText")) and time.monotonic() < until:
            time.sleep(0.2)
        text = reader.evaluate("document.body.innerText")
        assert "Running now" not in text and re.search(r"mix-two\s+rows\s+8\s+16000", text), text[:3000]
        assert seen[-1][3] >= 700 and reader.complaints == []
