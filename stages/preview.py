"""Previews the first rows of a task: `python -m stages.preview` reads a JSON request from stdin and writes the rows to stdout as JSON.

It runs the bodies of generate and tokenize on a few rows in a temporary folder, so it shows exactly what a build would do and leaves no
files.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages import generate, tokenize
from stages.process.job import Job
from stages.process.quiet import keep_quiet
from stages.rows.jsonl import read_objects, write_rows

_COLUMN_CHARACTERS = 2000


def main() -> int:
    """Answer the request on stdin; a user error goes to stderr, with exit code 1."""
    request = json.load(sys.stdin)
    keep_quiet()
    try:
        with TemporaryDirectory() as folder:
            rows = [dict(row) for row in preview(request, Path(folder))]
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(rows, sys.stdout, ensure_ascii=True)
    return 0


def preview(request: Mapping[str, Any], folder: Path) -> Iterator[Mapping[str, Any]]:
    """The first `rows` rows of a task, each with its location, its columns, the generated row, and its tokens."""
    from stages.generate.body import Generation

    parameters = generate.Parameters.model_validate(with_tuples(request["generate"]))
    job = Job(request["name"], {role: Path(path) for role, path in request["inputs"].items()}, folder, None, folder)
    generation = Generation(parameters, job)
    built = Path(request["built"]) if request["built"] else None
    drafts = (generation.examine(subject) for subject in islice(generation.subjects.main(), request["rows"]))
    for number, (draft, made) in enumerate(drafts):
        row = made if isinstance(made, dict) else _built(built, draft.id) if made is None else None
        yield {
            "id": draft.id,
            "group": draft.subject.group,
            "where": str(draft.subject.where),
            "source": {name: _short(value) for name, value in draft.subject.row.items()},
            "template": draft.prompt.template,
            "system": draft.prompt.system,
            "prompt": draft.prompt.prompt,
            "asked": draft.question.prompt,
            "row": row,
            "left_out": made if isinstance(made, str) else None,
            **(tokens_of(request["tokenize"], row, folder / str(number)) if row and request["tokenize"] else {}),
        }


def _short(value: object) -> object:
    """A column's value for display; long text is truncated."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= _COLUMN_CHARACTERS else f"{text[:_COLUMN_CHARACTERS]}…"


def _built(rows: Path | None, identity: str) -> dict[str, Any] | None:
    """The row from the last build of the step, if there is one."""
    if rows is None:
        return None
    return next((row for _, row in read_objects(rows) if row["id"] == identity), None)


def tokens_of(request: Mapping[str, Any], row: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The tokens of ROW with their supervision; or why tokenize would leave the row out, or would fail at it."""
    from stages.rows.rows import read_rows
    from stages.tokenize import body
    from stages.tokens.encoder import Encoder
    from stages.tokens.files import Tokens

    folder.mkdir()
    inputs = {role: Path(path) for role, path in request["inputs"].items()}
    write_rows(folder / "train.jsonl", [row])
    parameters = tokenize.Parameters.model_validate(with_tuples(request["parameters"]))
    try:
        encoder = Encoder.open(Job(request["name"], inputs, folder, None, folder).group("tokenizer"))
        body.refuse_tokenizer(parameters, encoder)
        tokenization = body.kind_of(parameters)(parameters, encoder, inputs.get("chat_template"))
        counts = body.write(tokenization, read_rows(folder / "train.jsonl"), folder / "train.safetensors")
    except UserError as error:
        problem = error.problems[0]
        return {"no_tokens": f"{problem.what} ({problem.hint})" if problem.hint else problem.what, "fails": True}
    if not counts["rows_out"]:
        return {"no_tokens": ", ".join(counts["left_out"]), "fails": False}
    found = Tokens.open(folder / "train.safetensors")
    rows_of_tokens = [
        _pieces(inputs["tokenizer/tokenizer.json"], [int(one) for one in ids], [bool(one) for one in supervised])
        for ids, supervised in map(found.row, range(len(found)))
    ]
    return {"tokens": rows_of_tokens[0], "more_tokens": rows_of_tokens[1:], "notes": _notes(counts, parameters)}


def _notes(counts: Mapping[str, Any], parameters: tokenize.Parameters) -> list[str]:
    """Notes on how a row was tokenized, from the counts of the step."""
    notes = []
    if controls := counts.get("control_tokens_in_text"):
        what = "encoded as text" if parameters.control_tokens_in_text == "text" else "kept as control tokens"
        notes.append(f"control tokens in its text: {controls['tokens']}, {what} (tokenization.control_tokens_in_text)")
    if unrolled := counts.get("unrolled"):
        notes.append(f"unrolled: one row per supervised turn, {unrolled['rows']} in total")
    notes += [f"not rendered: {part}" for part in counts.get("unrendered", {})]
    notes += [f"reasoning {what}: of {number} message{'s' * (number != 1)}" for what, number in counts.get("reasoning", {}).items()]
    if counts.get("truncated"):
        notes.append("truncated to the maximum length (tokenization.over_length)")
    notes += [f"part left out: {reason}" for reason in counts["left_out"]]
    return notes


def _pieces(tokenizer: Path, ids: list[int], supervised: list[bool]) -> list[dict[str, Any]]:
    from tokenizers import Tokenizer

    opened = Tokenizer.from_file(str(tokenizer))
    texts = opened.decode_batch([[one] for one in ids], skip_special_tokens=False)
    return [{"id": one, "text": text, "supervised": learned} for one, text, learned in zip(ids, texts, supervised, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
