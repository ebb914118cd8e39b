"""Small configurations of other tools, and a workspace to import them into."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.importing.importing import Import, import_files

CONFIGS = Path(__file__).parent / "configs"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(CONFIGS, tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def imported(workspace: Path) -> Callable[..., Import]:
    """Import configurations by their names."""

    def imported(*names: str, **options: Any) -> Import:
        return import_files([workspace / name for name in names], workspace, Path("specs"), **options)

    return imported


@pytest.fixture
def write(workspace: Path) -> Callable[[str, str], str]:
    """Write a configuration; gives its name."""

    def write(text: str, name: str = "new.yml") -> str:
        (workspace / name).write_text(text, "utf-8")
        return name

    return write
