"""Temporary folders of workers."""

import subprocess
import sys
import tempfile
from pathlib import Path

from engine.jobs.folders import own_folder


def test_the_folder_of_a_killed_worker_is_removed_by_the_next_and_that_of_a_running_one_stays(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import sys; from engine.jobs.folders import own_folder\nwith own_folder() as made: print(made, flush=True); sys.stdin.read()"
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path)}
    )
    theirs = Path(worker.stdout.readline().strip())
    (theirs / "weights").write_text("large")
    with own_folder() as ours:
        assert theirs.is_dir() and ours.is_dir() and not list(ours.iterdir())
    assert not ours.exists()
    worker.kill()
    worker.communicate()
    with own_folder():
        assert not theirs.exists()
    assert not list(tmp_path.iterdir())
