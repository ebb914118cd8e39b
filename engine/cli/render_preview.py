"""Prints a preview: a row's columns, its prompt and completion, and its tokens with the supervised part coloured."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from engine.cli.render import note, out, text
from engine.core.errors import visible
from engine.rows.preview import Preview

_SHOWN = 300
_SUPERVISED, _OTHER, _HEAD = "black on green", "dim", "bold"


def preview(found: Preview) -> None:
    """Print every row; without colours, supervised tokens are between ⟦ and ⟧."""
    console = out()
    for row in found.rows:
        for line in _lines(row, console.color_system is not None):
            console.print(line, soft_wrap=True)
    if found.without_tokens:
        note(found.without_tokens)
    if not found.rows:
        note("the source has no rows")


def _lines(row: Mapping[str, Any], colour: bool) -> Iterable[Text]:
    yield text(f"── {row['where']}  id {row['id']}  group {row['group'][:12]}", style=_HEAD)
    for name, value in row["source"].items():
        yield text((f"{name}: ", "cyan"), _short(value))
    if row["left_out"]:
        yield text(("left out: ", "bold yellow"), row["left_out"])
    yield from _texts(row)
    if "no_tokens" in row:
        fails = ("the build fails at this row, unless it is a test row: ", "bold red")
        yield text(fails if row["fails"] else ("left out of training: ", "bold yellow"), row["no_tokens"])
    if "tokens" in row:
        learned = sum(token["supervised"] for token in row["tokens"])
        for note_of in row.get("notes", ()):
            yield text(("note: ", "bold yellow"), note_of)
        yield text(f"tokens: {len(row['tokens'])}, {learned} supervised", style=_HEAD)
        yield tokens(row["tokens"], colour)
        for further in row.get("more_tokens", ()):
            yield text(f"tokens of another row: {len(further)}, {sum(token['supervised'] for token in further)} supervised", style=_HEAD)
            yield tokens(further, colour)
    yield text("")


def _texts(row: Mapping[str, Any]) -> Iterable[Text]:
    """The row as the model reads it: its messages, or its prompt and completion."""
    made = row["row"] or {}
    if "messages" in made:
        for message in made["messages"]:
            calls = f" {json.dumps(message['tool_calls'], ensure_ascii=False)}" if message.get("tool_calls") else ""
            if reasoning := message.get("reasoning_content"):
                yield text((f"{message['role']}, reasoning: ", "magenta"), reasoning)
            unsupervised = " (not supervised: train = false)" if message.get("train") is False else ""
            yield text((f"{message['role']}{unsupervised}: ", "magenta"), f"{message['content'] or ''}{calls}")
        return
    system, prompt = made.get("system", row["system"]), made.get("prompt", row["prompt"])
    if system:
        yield text(("system: ", "magenta"), system)
    yield text((f"prompt (template {row['template']}): ", "magenta"), prompt)
    if row["asked"] not in (prompt, ""):
        yield text(("request to the teacher: ", "magenta"), row["asked"])
    if made:
        yield text(("completion: ", "magenta"), made["completion"])
    elif not row["left_out"]:
        yield text(("completion: ", "magenta"), ("written by the teacher when the step runs; a preview sends no requests", "dim"))


def tokens(given: Iterable[Mapping[str, Any]], colour: bool) -> Text:
    """Tokens with the supervised ones coloured, or between brackets."""
    line, inside = Text(), False
    for token in given:
        if not colour and token["supervised"] != inside:
            inside = token["supervised"]
            line.append("⟦" if inside else "⟧")
        line.append(visible(token["text"]).replace("\n", "⏎").replace("\t", "⇥"), style=_SUPERVISED if token["supervised"] else _OTHER)
        line.append("|", style="dim")
    return line.append("⟧") if inside and not colour else line


def _short(value: object) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
