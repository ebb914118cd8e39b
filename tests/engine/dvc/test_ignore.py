"""What `.dvcignore` leaves out is what DVC leaves out, for every pattern that DVC reads, in the root and in folders below it."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.build.driver import dvc_environment
from engine.core.errors import UserError
from engine.dvc.disk import Disk
from engine.dvc.hashing import Hashes
from engine.dvc.ignore import Ignored

NAMES = ("a", "b", "ab", "a.pyc", "b.pyc", "x y", "ü", ".git", ".dvc", "__pycache__")


def dvcs(root: Path, path: str) -> bool:
    """Whether DVC itself counts a path."""
    found = DvcIgnoreFilter(localfs, str(root))
    full = str(root / path)
    return not (found.is_ignored_dir(full) if path.endswith("/") else found.is_ignored_file(full))


names = st.sampled_from(NAMES[:7])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
globs = st.sampled_from(["*", "?", "**", "*.pyc", "a*", "[ab]", "[!a]", "*b", "a", "b", "ab", "x y", "ü", "__pycache__"])
patterns = st.builds(
    lambda negated, rooted, parts, folder: f"{negated}{rooted}{'/'.join(parts)}{folder}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/", "**/"]),
    st.lists(globs, min_size=1, max_size=3),
    st.sampled_from(["", "/", "/**"]),
)
files = st.lists(st.one_of(patterns, patterns, st.sampled_from(["# a", "", "\\#x", "\\!a", "a ", "  b", "/"])), max_size=5).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(st.sets(paths, min_size=1, max_size=8), files, st.none() | files)
def test_any_tree_is_seen_as_dvc_sees_it(tree: set[str], text: str, nested: str | None):
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for path in sorted(tree):
            target = root / path
            if not target.exists() and not any(parent.is_file() for parent in target.parents):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path)
        (root / ".dvcignore").write_text(text)
        if nested is not None and (root / "a").is_dir():
            (root / "a/.dvcignore").write_text(nested)
        ignored = Ignored(root)
        for where, folders, leaves in os.walk(root):
            inside = "" if Path(where) == root else f"{Path(where).relative_to(root).as_posix()}/"
            for path in (*(f"{inside}{name}/" for name in folders), *(f"{inside}{name}" for name in leaves)):
                assert ignored.reaches(path) == dvcs(root, path), (path, text, nested)


@pytest.mark.parametrize(
    ("pattern", "path", "counts"),
    [
        ("/tests/", "tests/a/dvc.yaml", False),
        ("/tests/", "data/tests/", True),
        ("/tests/", "tests", True),
        ("/a", "a", False),
        ("/tests/golden", "tests/golden/", False),
        ("/tests/golden", "tests/golden/a/dvc.yaml", False),
        ("/tests/golden", "deep/tests/golden/", True),
        ("tests/**/x", "tests/a/b/x", False),
        ("*.pyc\n!keep.pyc", "a/keep.pyc", True),
        ("a/\n!a/x", "a/x", False),
        ("*.pyc", "a/b.pyc", False),
        ("a/", "a", True),
        ("", "a/.git/config", False),
        ("", ".dvc/config", False),
    ],
)
def test_patterns_mean_what_git_and_dvc_mean(tmp_path: Path, pattern: str, path: str, counts: bool):
    (tmp_path / ".dvcignore").write_text(pattern)
    assert Ignored(tmp_path).reaches(path) == counts == dvcs(tmp_path, path)


def test_a_line_that_is_no_pattern_is_told_with_its_place(tmp_path: Path):
    (tmp_path / ".dvcignore").write_text("*.pyc\n!\n")
    with pytest.raises(UserError) as caught:
        Ignored(tmp_path).reaches("a")
    assert "invalid pattern '!'" in str(caught.value) and ".dvcignore:2" in str(caught.value)


def test_plain_patterns_need_no_library(tmp_path: Path):
    (tmp_path / ".dvcignore").write_text("__pycache__\n*.pyc\ndata/\n")
    code = """import sys
from pathlib import Path
from engine.dvc.ignore import Ignored
Ignored(Path()).reaches("a/b")
assert "pathspec" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}, check=True)


def test_a_folder_hashes_as_dvc_hashes_it_under_rooted_and_negated_patterns(tmp_path: Path):
    root = tmp_path
    for path in ("data/a.txt", "data/b.tmp", "data/keep.tmp", "data/deep/golden/x", "data/deep/x"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / ".dvcignore").write_text("/data/deep/golden\n*.tmp\n!keep.tmp\n")
    (root / "dvc.yaml").write_text("stages:\n  a:\n    cmd: echo > out\n    deps: [data]\n    outs: [out]\n")
    for command in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        (root / ".dvcignore").write_text("/data/deep/golden\n*.tmp\n!keep.tmp\n")
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, env=dvc_environment(), check=True)
    store = Disk(root, Hashes(root))
    record = store.record("a")
    assert record and store.entry("data") == record.dependencies["data"] and store.entry(str(root / "data")) == store.entry("data")
    assert store.entry("data/deep/golden") is None, "DVC does not see it"
    assert store.entry("data/a.txt") is not None


def test_what_lies_outside_of_the_workspace_is_no_matter_of_its_patterns(tmp_path: Path):
    root, other = tmp_path / "w", tmp_path / "other"
    for folder in (root / "in", other):
        folder.mkdir(parents=True)
        for name in ("a.txt", "b.tmp"):
            (folder / name).write_text(name)
    (root / ".dvcignore").write_text("*.tmp\n/in/never\n")
    store = Disk(root, Hashes(root))
    outside = [entry.files if (entry := store.entry(path)) else None for path in (str(other), "../other")]
    assert outside == [2, 2]
    inside = store.entry("in")
    assert inside and inside.files == 1
