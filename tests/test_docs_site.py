"""The documentation: one navigation with every page, links that lead somewhere, and a reference that is what the code says."""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml

from engine.cli import main as cli
from engine.spec.schema import schema
from tests.support.commands import engine
from tools import reference, site_hooks
from tools.markdown import cell

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
PARTS = ["Home", "Tutorial", "How-to guides", "Reference", "Explanation"]


def navigation() -> list[dict[str, object]]:
    # mkdocs.yml is plain YAML here: nothing in it runs code.
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]


def leaves(nav: object) -> list[str]:
    """The pages of NAV in their order."""
    if isinstance(nav, dict):
        nav = list(nav.values())
    return [leaf for item in nav for leaf in leaves(item)] if isinstance(nav, list) else [str(nav)]


def test_the_navigation_has_four_parts_and_every_page_once():
    listed = leaves(navigation()) + site_hooks.records()
    assert [next(iter(item)) for item in navigation()] == PARTS
    assert sorted(listed) == sorted([*PAGES, *site_hooks.PAGES])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning as an error."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_the_site_is_built_without_a_warning_and_search_finds_every_page(site: Path):
    found = {entry["location"] for entry in json.loads((site / "search/search_index.json").read_text("utf-8"))["docs"]}
    addresses = {re.sub(r"(^|/)(index|README)\.md$", r"\1", page).replace(".md", "/") for page in [*PAGES, *site_hooks.PAGES]}
    assert addresses <= found


def test_a_page_takes_nothing_from_another_host(site: Path):
    taken = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=.?(?:https?:)?//|<link[^>]*rel=.?(?:stylesheet|preconnect)[^>]*href=.?https?:")
    pages = list(site.rglob("*.html"))
    assert pages and not [page.name for page in pages if taken.search(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", [*PAGES, *site_hooks.PAGES.values()])
def test_lists_are_written_as_the_site_reads_them(page: str):
    """A list stands after an empty line, and what belongs to an item is set in by four spaces; code hosts read both in the same way."""
    text = ((DOCS if page in PAGES else ROOT) / page).read_text("utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^(?![-*] |\d+\. |\s|#|\|)[^\n]+\n(?=[-*] |\d+\. )(?!\s)", text.replace("\n  ", " "), re.MULTILINE)
    assert not re.findall(r"^ {1,3}(?:[-*]|\d+\.) ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("target", "source", "uri", "leads"),
    [
        ("../reference/cli.md", "docs/how-to/data.md", "how-to/data.md", "../reference/cli.md"),
        ("../../specs/seeds", "docs/experiments/README.md", "experiments/README.md", "https://host/tree/main/specs/seeds"),
        ("../../README.md", "docs/how-to/report.md", "how-to/report.md", "https://host/blob/main/README.md"),
        ("../CHANGELOG.md", "docs/index.md", "index.md", "changelog.md"),
        ("docs/how-to/sweep.md", "CHANGELOG.md", "changelog.md", "how-to/sweep.md"),
        ("https://example.org/a.md", "docs/index.md", "index.md", "https://example.org/a.md"),
    ],
)
def test_links_lead_to_pages_of_the_site_or_to_files_of_the_repository(target: str, source: str, uri: str, leads: str):
    assert site_hooks.moved(target, source, uri, "https://host") == leads


def test_a_link_to_a_file_that_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture):
    site_hooks.moved("../gone.toml", "docs/index.md", "index.md", "https://host")
    assert "docs/index.md links to ../gone.toml" in caplog.text


def test_the_reference_is_what_the_code_says():
    assert reference.stale(reference.ROOT) == [], "run: make reference"


def test_a_reference_that_was_edited_or_is_left_over_is_stale_until_it_is_written(tmp_path: Path):
    assert reference.write(tmp_path) == sorted(reference.pages())
    (tmp_path / "cli.md").write_text("mine")
    (tmp_path / "spec/training.md").unlink()
    (tmp_path / "spec/gone.md").write_text("a section that was")
    assert reference.stale(tmp_path) == ["cli.md", "spec/gone.md", "spec/training.md"]
    reference.write(tmp_path)
    assert reference.stale(tmp_path) == [] and not (tmp_path / "spec/gone.md").exists()


def test_every_option_of_every_command_stands_on_the_page_with_what_it_means():
    page = reference.pages()["cli.md"]
    verbs = {name: verb for name, verb in cli.command().commands.items() if not verb.hidden}
    assert {"plan", "build", "pick", "graph"} <= verbs.keys()
    for name, verb in verbs.items():
        section = page.split(f"## engine {name}\n")[1].split("\n## ")[0]
        for parameter in verb.params:
            assert parameter.help and cell(parameter.help) in section
            assert parameter.param_type_name == "argument" or all(option in section for option in parameter.opts)


def test_every_key_of_every_table_of_a_spec_stands_on_a_page_with_what_it_means():
    pages = "\n".join(reference.pages().values())
    for name, definition in schema()["$defs"].items():
        for key, node in definition.get("properties", {}).items():
            row = rf"^\| `{key}` \|.*{re.escape(cell(node.get('description')))}"
            assert re.search(row, pages, re.MULTILINE), f"{name}.{key}"


def anchors(text: str) -> list[str]:
    """What the headings of a page are linked by."""
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)]


def test_every_link_of_the_reference_has_its_heading():
    pages = reference.pages()
    for name, text in pages.items():
        for page, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", text):
            target = pages[(PurePosixPath(name).parent / page).as_posix() if page else name]
            assert anchors(target).count(anchor) == 1, f"{name}: {page}#{anchor}"


def test_records_of_decisions_are_numbered_in_order_and_each_stands_in_the_index():
    index = (DOCS / site_hooks.DECISIONS / "index.md").read_text("utf-8")
    for number, record in enumerate(site_hooks.records(), 1):
        text = (DOCS / record).read_text("utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        assert title.startswith(f"{number}. ") and Path(record).name.startswith(f"{number:04d}-")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert f"[{title}]({Path(record).name})" in index


def test_no_word_stands_twice_in_the_glossary():
    words = re.findall(r"\*\*(.+?)\*\*", (DOCS / "reference/glossary.md").read_text("utf-8"))
    asked = (
        "supervised token, completion, turn, bin, micro-batch, global batch, recipe, resource, identity, revision, statement, run record"
    )
    assert len(words) == len(set(words)) and {*asked.split(", "), "artifact", "step", "kind", "unit", "closure"} <= set(words)


def test_the_version_is_said_and_is_that_of_the_changelog_and_the_citation(tmp_path: Path):
    from engine import __version__

    said = engine(tmp_path, "--version")
    assert (said.returncode, said.stdout) == (0, f"adapterbuild {__version__}\n")
    released = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released and released[1] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == __version__


def test_the_page_on_an_index_links_to_the_repository_and_shows_its_picture():
    text = runpy.run_path(str(ROOT / "setup.py"))["description"]()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all(link.startswith("https://") for link in links)
    assert [link for link in links if link.endswith("/raw/main/docs/report.png")]


def test_the_workflow_runs_the_commands_of_the_readme_on_every_python_that_the_package_names():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]["test"]
    commands = re.findall(r"^    (make \w+) +#", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert commands == ["make quickstart", "make test"] == [step["run"] for step in job["steps"] if step.get("run", "").startswith("make")]
    named = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    assert job["strategy"]["matrix"]["python"] == re.findall(r":: (3\.\d+)\b", "\n".join(named))


def test_the_licence_is_the_one_that_the_package_names():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.lstrip().startswith("Apache License\n") and "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_a_place_for_what_comes_and_sections_for_what_was():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert text.count("## Unreleased\n") == 1 and text.index("## Unreleased") < text.index("## 0.2.0") < text.index("## 0.1.0")
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
