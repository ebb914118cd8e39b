"""What another tool learns of the rows of a task, and what a spec does: `python -m stages.comparison` reads a JSON request from stdin.

It runs the bodies of generate and tokenize on the rows, and labels the same rows by the tool's rules (`stages/foreign`), or by the tool's
own code in another Python. The answer on stdout has the first rows token by token, the differences of all, and counts; nothing is written.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages import generate, tokenize
from stages.foreign import axolotl, llamafactory, own_code, trl
from stages.foreign.labels import Dropped, Labelled, Made, NoRule, Oddities, difference
from stages.generate.selection import Located
from stages.process.job import Job
from stages.process.quiet import keep_quiet
from stages.rows.jsonl import write_rows

RULES = {"axolotl": axolotl.label, "llamafactory": llamafactory.label, "trl": trl.label}
"""How the rules of each tool label a row."""


def main() -> int:
    """Answer the request on stdin; a user error goes to stderr, with exit code 1."""
    request = json.load(sys.stdin)
    keep_quiet()
    try:
        with TemporaryDirectory() as folder:
            answer = compare(request, Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(answer, sys.stdout, ensure_ascii=True)
    return 0


def compare(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The first `shown` rows of a task token by token, and the differences and counts of its first `rows`; raises UserError."""
    from transformers import AutoTokenizer

    place = Path(request["tokenize"]["inputs"]["tokenizer/tokenizer.json"]).parent
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    rows = [*_rows(request, folder)]
    ours = [*_ours(request, [made for _, _, made in rows], folder)]
    theirs, missing = _theirs(request, [raw for _, raw, _ in rows], tokenizer, place)
    ends = {row.ids[last] for made in ours if not isinstance(made, Dropped) for row in made if (last := _last(row)) is not None}
    ends |= {tokenizer.eos_token_id} - {None}
    counts = {"theirs": Oddities(), "ours": Oddities()}
    differences: Counter[str] = Counter()
    shown = []
    text = lambda ids: tokenizer.decode(ids)  # noqa: E731
    for number, ((where, raw, _), mine) in enumerate(zip(rows, ours, strict=True)):
        counts["ours"].add(mine, [*ends], tokenizer.bos_token_id)
        said = None
        if theirs is not None:
            counts["theirs"].add(theirs[number], [*ends], tokenizer.bos_token_id)
            said = difference(theirs[number], mine, text, [*ends])
            differences[said] += 1
        if number < request["shown"]:
            pair = {"ours": _pieces(mine, tokenizer), "theirs": _pieces(theirs[number], tokenizer) if theirs is not None else None}
            shown.append({"where": where, "source": raw, "difference": said, **pair})
    return {
        "rows": shown,
        "compared": len(rows) if theirs is not None else 0,
        "differences": dict(differences.most_common()),
        "counts": {side: found.as_data() for side, found in counts.items() if side == "ours" or theirs is not None},
        "without_rules": missing,
    }


def _rows(request: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | str]]:
    """Where each row is, its columns, and the generated row or why it is left out."""
    from stages.generate.body import Generation

    parameters = generate.Parameters.model_validate(with_tuples(request["generate"]))
    job = Job(request["name"], {role: Path(path) for role, path in request["inputs"].items()}, folder, None, folder)
    generation = Generation(parameters, job)
    read: dict[str, dict[str, Any]] = {}

    def recorded() -> Iterator[Located]:
        for where, row in parameters.source.read(job.files("source")):
            read[str(where)] = dict(row)
            yield where, row

    for subject in islice(generation.subjects.main(recorded()), request["rows"]):
        # The tool reads the rows of the file: without the columns that the source or its layout adds.
        where, raw = str(subject.where), read.pop(str(subject.where))
        try:
            _, made = generation.examine(subject)
        except UserError as error:
            yield where, raw, f"an error: {error.problems[0].what}"
            continue
        yield where, raw, made or "its teacher is asked in a build only"


def _ours(request: Mapping[str, Any], rows: list[dict[str, Any] | str], folder: Path) -> Iterator[Made]:
    """What tokenize makes of each generated row."""
    from stages.rows.rows import read_rows
    from stages.tokenize.body import kind_of, write
    from stages.tokenize.counts import Counts
    from stages.tokens.encoder import Encoder
    from stages.tokens.files import Tokens

    asked = request["tokenize"]
    job = Job(asked["name"], {role: Path(path) for role, path in asked["inputs"].items()}, folder, None, folder)
    parameters = tokenize.Parameters.model_validate(with_tuples(asked["parameters"]))
    encoder = Encoder.open(job.group("tokenizer"))
    given, tokens = folder / "row.jsonl", folder / "row.safetensors"
    tokenization = kind_of(parameters)(parameters, encoder, job.inputs.get("chat_template"))
    for row in rows:
        if isinstance(row, str):
            yield Dropped(row)
            continue
        write_rows(given, [row])
        tokenization.counts = counts = Counts()
        try:
            write(tokenization, read_rows(given), tokens)
        except UserError as error:
            yield Dropped(f"an error: {error.problems[0].what}")
            continue
        made = _pieces_of(Tokens.open(tokens), bool(counts.truncated)) if counts.rows_out else []
        yield made or Dropped(next(iter(counts.left_out), "left out"))


def _pieces_of(found: Any, cut: bool) -> list[Labelled]:
    """Each row of the token file FOUND."""
    rows = map(found.row, range(len(found)))
    return [Labelled([int(one) for one in ids], [bool(one) for one in supervised], cut) for ids, supervised in rows]


def _theirs(request: Mapping[str, Any], rows: list[dict[str, Any]], tokenizer: Any, place: Path) -> tuple[list[Made] | None, str | None]:
    """What the tool makes of each row; None and the reason if its rules are not written down for this configuration."""
    theirs = request["theirs"]
    if request["python"]:
        return _by_own_code(request["python"], {**theirs, "tokenizer": str(place), "rows": rows}), None
    label = RULES[theirs["tool"]]
    try:
        return [label(row, theirs["config"], theirs["dataset"], tokenizer) for row in rows], None
    except NoRule as missing:
        return None, str(missing)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return None, f"the rows do not have what the configuration reads: {type(error).__name__}: {error}"


def _by_own_code(python: str, request: Mapping[str, Any]) -> list[Made]:
    if request["tool"] == "axolotl" and request["config"].get("rl"):
        hint = "leave the option out: the spec's side is shown"
        raise UserError("--with-python: axolotl prepares pairs of answers only while it trains", hint=hint)
    if request["config"].get("stage") == "kto" or {"completion", "label"} <= set().union(*request["rows"]):
        hint = "leave the option out: the spec's side is shown"
        raise UserError("--with-python: judged answers are not prepared by the tool's own code", hint=hint)
    try:
        done = subprocess.run([python, own_code.__file__], input=json.dumps(request), capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{python} cannot be run: {error.strerror}", hint="name a Python interpreter") from None
    if done.returncode:
        hint = f"its environment must import {request['tool']}"
        raise UserError(f"{request['tool']} in {python} failed: {_exception(done.stderr)}", hint=hint)
    answers = json.loads(done.stdout)
    return [_labelled(answer) for answer in answers]


def _exception(said: str) -> str:
    """The exception with which a process ended, on one line: messages such as those of pydantic have several."""
    lines = [line for line in said.strip().splitlines() if "For further information" not in line]
    start = next((n for n in range(len(lines) - 1, -1, -1) if lines[n][:1].strip()), 0)
    return " ".join(line.strip() for line in lines[start:]) or "no message"


def _labelled(answer: list[list[list[int]]] | None) -> Made:
    if answer is None:
        return Dropped("by its own rules")
    return [Labelled(ids, [label != -100 for label in labels]) for ids, labels in answer]


def _last(row: Labelled) -> int | None:
    return next((place for place in range(len(row.ids) - 1, -1, -1) if row.learned[place]), None)


def _pieces(made: Made, tokenizer: Any) -> list[list[dict[str, Any]]] | str:
    """Each piece of a row as tokens with their text; why a row is left out."""
    if isinstance(made, Dropped):
        return made.why
    shown = ([*zip(row.ids, row.learned, strict=True)] for row in made)
    return [[{"id": one, "text": tokenizer.decode([one]), "supervised": learned} for one, learned in row] for row in shown]


if __name__ == "__main__":
    sys.exit(main())
