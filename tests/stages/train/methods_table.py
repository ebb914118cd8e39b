"""The table of training methods and model families in the reference, from what the tests ran.

`UPDATE_METHODS=1 python -m pytest tests/stages/train/test_{matrix,partitioned}.py` records what they ran;
`python -m tests.stages.train.methods_table` prints the table, `--write` writes it, `--check` fails where it is not what was recorded.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REFERENCE = Path(__file__).parents[3] / "docs/reference"
OUTCOMES = _REFERENCE / "methods.json"
TABLE = _REFERENCE / "methods.md"
ZERO_COLUMNS = ("ZeRO 1", "ZeRO 2", "ZeRO 3", "ZeRO 3, offloaded")

_HEAD = """# Training methods and model families

Generated from what the tests ran (`tests/stages/train/test_matrix.py`). A tick is a real training of a tiny model from scratch on the
CPU, after which the saved model or adapter was loaded again and gave the same logits. What is refused is refused before any work,
by `engine check` where the architecture is known then, with the reason below.

The columns of ZeRO (`tests/stages/train/distributed/test_partitioned.py`): two processes train a tiny Falcon, and every loss, the norm of
every gradient and the trained weights are those of one process without DeepSpeed. Offloaded are optimizer states and weights, to main
memory.

"""

_OBJECTIVES = """
## Objectives

The table above is of supervised training. Objectives on answers and `distill` train with every method (tried on Llama), and on every
family of causal models (tried with lora): a tick is a loss with its gradient, finite and not zero (`tests/stages/train/test_matrix.py`).

"""


def read() -> dict[str, Any]:
    """What was recorded: under `families` by method and family, under `zero` by method and ZeRO stage."""
    found: dict[str, Any] = json.loads(OUTCOMES.read_text("utf-8")) if OUTCOMES.exists() else {"families": {}}
    return found


@contextmanager
def written(section: str = "families") -> Iterator[dict[str, dict[str, str]]]:
    """The outcomes of SECTION, to be added to; they are kept only where UPDATE_METHODS is set."""
    record = read()
    yield record.setdefault(section, {})
    if os.environ.get("UPDATE_METHODS"):
        OUTCOMES.write_text(json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def table(record: dict[str, Any]) -> str:
    """RECORD as Markdown: methods down, families and ZeRO stages across, reasons below."""
    families, zero = record["families"], record.get("zero", {})
    stages = list(next(iter(zero.values()), {}))
    columns = [*next(iter(families.values()), {}), *stages]
    rows = {
        name: [*(cells.get(family, "") for family in columns[: len(cells)]), *(zero.get(name, {}).get(stage, "") for stage in stages)]
        for name, cells in families.items()
    }
    reasons = list(dict.fromkeys(cell for cells in rows.values() for cell in cells if cell != "trains"))
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, cells in rows.items():
        lines.append(f"| {name} | {' | '.join(_mark(cell, reasons) for cell in cells)} |")
    notes = [f"\n{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return _HEAD + "\n".join(lines) + "\n" + "".join(notes) + "\n" * bool(notes) + _objectives(record.get("objectives", {}))


def _objectives(cells: dict[str, dict[str, str]]) -> str:
    """The table of objectives: methods and families down, objectives across, reasons below."""
    columns = sorted(cells)
    if not columns:
        return ""
    reasons = list(dict.fromkeys(cell for column in columns for cell in cells[column].values() if cell != "trains"))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in cells[columns[0]]:
        lines.append(f"| {name} | {' | '.join(_mark(cells[column].get(name, ''), reasons) for column in columns)} |")
    notes = [f"\n{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return _OBJECTIVES + "\n".join(lines) + "\n" + "".join(notes) + "\n" * bool(notes)


def _mark(cell: str, reasons: list[str]) -> str:
    return {"trains": "✓", "": "–"}.get(cell) or f"refused ({reasons.index(cell) + 1})"


def main(mode: str) -> int:
    """Print, write or check the table."""
    text = table(read())
    if mode == "--write":
        TABLE.write_text(text, "utf-8")
    elif mode == "--check":
        return int(not TABLE.exists() or TABLE.read_text("utf-8") != text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
