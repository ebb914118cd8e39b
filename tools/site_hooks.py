"""What mkdocs asks while it builds the site: pages from files outside of `docs/`, links that leave it, and the records of decisions."""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages of the site that stand in the repository's root, where people look for them."""
DECISIONS = "explanation/decisions"

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_log = logging.getLogger("mkdocs.hooks.site")


def records() -> list[str]:
    """The records of decisions in their order, relative to `docs/`."""
    return sorted(f"{DECISIONS}/{path.name}" for path in (ROOT / "docs" / DECISIONS).glob("[0-9]*.md"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the records below the page of decisions."""
    found = _below(config.nav, f"{DECISIONS}/index.md")
    assert found is not None, "mkdocs.yml has no page of decisions"
    found.extend(record for record in records() if record not in found)
    return config


def _below(nav: Any, page: str) -> list[Any] | None:
    """The list in NAV that holds PAGE."""
    if isinstance(nav, dict):
        nav = list(nav.values())
    if not isinstance(nav, list):
        return None
    return nav if page in nav else next((found for item in nav if (found := _below(item, page)) is not None), None)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand in the root."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository that are no page of the site lead to the repository."""
    uri = page.file.src_uri
    source = PAGES.get(uri, f"docs/{uri}")
    return _LINK.sub(lambda link: link[1] + moved(link[2], source, uri, str(config.repo_url)) + (link[3] or "") + link[4], markdown)


def moved(target: str, source: str, uri: str, repository: str) -> str:
    """Where a link to TARGET in the file SOURCE of the repository leads from the site's page URI."""
    if re.match(r"[a-z]+:", target):
        return target
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    for page, root_file in PAGES.items():
        if path == root_file:
            return posixpath.relpath(page, posixpath.dirname(uri) or ".")
    if path.startswith("docs/"):
        return posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(uri) or ".")
    if not (ROOT / path).exists():
        _log.warning("%s links to %s, which is not there", source, target)
    return f"{repository}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"
