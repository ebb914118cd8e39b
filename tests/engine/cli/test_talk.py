"""Answers in a terminal begin with their first word; a program gets them as they are."""

import io
import sys

import pytest

from engine.cli.talk import Growing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal(), "shipping \nby air"), (io.StringIO(), "  shipping \nby air")])
def test_blanks_before_an_answer_are_shown_to_programs_only(stream: io.StringIO, shown: str, monkeypatch: pytest.MonkeyPatch):
    growing = Growing()
    monkeypatch.setattr(sys, "stdout", stream)
    assert "".join(growing.shown(part) for part in ("", " ", " ship", "ping ", "\nby air")) == shown
