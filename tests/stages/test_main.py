"""What a step's process says of an error, and its exit status."""

import pytest

from stages import __main__ as command


def test_the_message_of_an_unforeseen_error_is_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def fail(*arguments: str) -> None:
        raise ValueError("row '\x1b[2J'")

    monkeypatch.setattr(command, "run_step", fail)
    assert command.main(["split", "split-a"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and r"ValueError: row '\x1b[2J'" in said and "\x1b" not in said
