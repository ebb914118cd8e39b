"""Files of verdicts: which of two models' answers a judge prefers, asked in both orders."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from stages.rows.jsonl import read_objects
from stages.rows.prediction import Prediction
from stages.rows.strict_json import parse

WIN_RATE = "win_rate"
_PLACES = ("first", "second")
_TIE = "tie"
_HINT = "a file written by the judge's step is needed: build that step again"


@dataclass(frozen=True)
class Wins:
    """How often one model's answers are preferred to another's: 1 is a win, 0 a loss, and 0.5 a tie."""

    by_row: Mapping[str, float]
    """Mean over both orders, by the id of the row; rows that were not judged in both orders are left out."""
    unjudged: int
    """Number of these rows."""
    by_place: int
    """Number of rows whose verdict follows the place of the answers: with the order, the preference changes sides."""
    equal: int
    """Number of rows with equal answers, which are ties and were not shown to the judge."""

    def counts(self) -> dict[str, int]:
        """Numbers of rows by outcome."""
        scores = list(self.by_row.values())
        return {
            "wins": sum(score > 0.5 for score in scores),
            "losses": sum(score < 0.5 for score in scores),
            "ties": sum(score == 0.5 for score in scores),
            "equal_answers": self.equal,
            "undecided_by_order": self.by_place,
            "unjudged": self.unjudged,
        }


def wins(path: Path, ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> Wins:
    """The outcomes of OURS against THEIRS, aligned, from the verdicts in PATH; raises UserError for a file of other answers."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for where, row, place, score in _verdicts(path):
        if place in found[row]:
            raise UserError(f"row {row} is judged twice in one order", where, _HINT)
        found[row][place] = score
    if strangers := found.keys() - {one.id for one in ours}:
        raise UserError(f"row {min(strangers)} is judged here but is not among the predictions", Location(str(path)), _HINT)
    scores: dict[str, float] = {}
    equal = by_place = unjudged = 0
    for one, other in zip(ours, theirs, strict=True):
        if (one.answer, one.finish_reason) == (other.answer, other.finish_reason):
            equal, scores[one.id] = equal + 1, 0.5
        elif len(said := found.get(one.id, {})) == len(_PLACES):
            scores[one.id] = sum(said.values()) / len(_PLACES)
            by_place += set(said.values()) == {0.0, 1.0}
        else:
            unjudged += 1
    return Wins(scores, unjudged, by_place, equal)


def _verdicts(path: Path) -> Iterator[tuple[Location, str, str, float]]:
    """Row, place of our answer, and our score of each line."""
    for where, line in read_objects(path):
        carried, said = line.get("carried"), line.get("completion")
        if not isinstance(carried, dict) or carried.get("ours") not in _PLACES or not isinstance(said, str):
            raise UserError("this line is not a verdict: it lacks the place of our answer or what the judge said", where, _HINT)
        try:
            verdict: Any = parse(said)
            better = verdict["better"]
        except (ValueError, TypeError, KeyError):
            better = None
        if better not in (*_PLACES, _TIE):
            raise UserError(f"better must be first, second or tie, got {better!r}", where, _HINT)
        yield where, str(carried["id"]), carried["ours"], 0.5 if better == _TIE else float(better == carried["ours"])
