"""Writes the rows of the two tasks as JSON lines into `data/`, from public files as they were published.

    python prepare.py FOLDER

FOLDER holds `sentence_polarity/rt-polarity.pos` and `.neg`, and `instruction_induction/induce/active_to_passive.json`; README.md of
`smollm2`, the example next to this one, says where they are published.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

Row = dict[str, str]


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


def main() -> int:
    """Write `data/` of this example."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    source, target = Path(sys.argv[1]), Path(__file__).parent / "data"
    target.mkdir(exist_ok=True)
    for task in (polarity, passive):
        write(target / f"{task.__name__}.jsonl", task(source))
    return 0


if __name__ == "__main__":
    sys.exit(main())
