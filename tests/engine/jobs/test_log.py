"""What a worker shows of a step: its lines, none of which a terminal obeys."""

import subprocess
import sys

import pytest

from engine.jobs.worker import Log


def shown(log: Log, code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", f"import sys, time; w = sys.stdout.write; {code}"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        log.follow(process.stdout)


def test_sequences_in_rows_are_shown_and_the_driver_gets_what_the_step_wrote(capfd: pytest.CaptureFixture[str]):
    with Log() as log:
        shown(log, r"""w("row \x1b]0;gone\x07\x1b[2J\u202eend\n")""")
        assert capfd.readouterr().err == "row \\x1b]0;gone\\x07\\x1b[2J\\u202eend\n"
        assert log.end() == "row \x1b]0;gone\x07\x1b[2J\u202eend\n"


def test_a_bar_that_is_drawn_again_and_an_unfinished_line_are_lines(capfd: pytest.CaptureFixture[str]):
    with Log() as log:
        bar = r"""w("train: 1/2 steps\rtrain: 2/2 steps\r\n"); sys.stdout.flush(); time.sleep(0.1)"""
        shown(log, bar + """; w("half a l"); sys.stdout.flush(); w("ine")""")
        assert capfd.readouterr().err.splitlines() == ["train: 1/2 steps", "train: 2/2 steps", "half a line"]


def test_letters_that_arrive_in_two_parts_and_bytes_that_are_no_text(capfd: pytest.CaptureFixture[str]):
    with Log() as log:
        code = r"""b = sys.stdout.buffer; b.write(b"gr\xc3"); b.flush(); time.sleep(0.2); b.write(b"\xbcn \xff\n")"""
        shown(log, code)
        assert capfd.readouterr().err == "grün \ufffd\n"


def test_a_line_without_end_is_shown_in_parts(capfd: pytest.CaptureFixture[str]):
    with Log() as log:
        shown(log, r"""w("x" * 200_000)""")
        found = capfd.readouterr().err
        assert found.count("x") == 200_000 and max(map(len, found.splitlines())) < 140_000


def test_what_a_worker_does_reads_like_the_lines_of_a_build(capfd: pytest.CaptureFixture[str]):
    with Log() as log:
        log.event("run", "train-a", "on node-1")
        log.say("signs as SHA256:x")
        assert capfd.readouterr().err == "run      train-a   on node-1\nsigns as SHA256:x\n"
        assert log.end() == "signs as SHA256:x\n"
