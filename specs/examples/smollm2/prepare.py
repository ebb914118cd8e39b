"""Writes the rows of the tasks as JSON lines into `data/` of the current folder, from public files as they were published.

    python prepare.py FOLDER [TASK ...]

TASK is `person`, `polarity` or `passive`; without any, all three. FOLDER holds `ner/wikigold.conll.txt`,
`sentence_polarity/rt-polarity.pos` and `.neg`, and `instruction_induction/induce/active_to_passive.json`; README.md says where they are
published.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

Row = dict[str, str]


def sentences(conll: str) -> Iterator[list[tuple[str, str]]]:
    """The sentences of a CoNLL file (one word and its tag per line, sentences separated by blank lines)."""
    for block in conll.split("\n\n"):
        if lines := [line.split() for line in block.splitlines() if line.strip()]:
            yield [(word, tag) for word, tag in lines]


def persons(sentence: list[tuple[str, str]]) -> list[str]:
    """The names of persons, each a run of words tagged I-PER."""
    runs = groupby(sentence, key=itemgetter(1))
    return [" ".join(word for word, _ in run) for tag, run in runs if tag == "I-PER"]


def person(folder: Path) -> Iterator[Row]:
    """Sentences of Wikipedia that name one to three persons."""
    for sentence in sentences((folder / "ner/wikigold.conll.txt").read_text("utf-8")):
        names = persons(sentence)
        if 1 <= len(names) <= 3 and len(sentence) <= 40:
            yield {"text": " ".join(word for word, _ in sentence), "persons": "; ".join(names)}


def polarity(folder: Path) -> Iterator[Row]:
    """Sentences of film reviews, with what they say of the film."""
    for label, name in (("positive", "rt-polarity.pos"), ("negative", "rt-polarity.neg")):
        for line in (folder / "sentence_polarity" / name).read_text("latin-1").splitlines():
            if line.strip() and len(line.split()) <= 40:
                yield {"text": line.strip(), "polarity": label}


def passive(folder: Path) -> Iterator[Row]:
    """Sentences in the active voice, with the same in the passive."""
    rows = json.loads((folder / "instruction_induction/induce/active_to_passive.json").read_text("utf-8"))["examples"].values()
    for row in rows:
        yield {"text": row["input"], "passive": row["output"]}


def write(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8", newline="\n")


TASKS = {task.__name__: task for task in (person, polarity, passive)}


def main() -> int:
    """Write `data/`."""
    source, *wanted = sys.argv[1:] or [""]
    if not source or not Path(source).is_dir() or not set(wanted) <= TASKS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    target = Path("data")
    target.mkdir(exist_ok=True)
    for name in wanted or TASKS:
        write(target / f"{name}.jsonl", TASKS[name](Path(source)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
