"""The report of a real build, opened in a real browser where there is one."""

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Place

pytestmark = pytest.mark.slow

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


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


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 360])
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
