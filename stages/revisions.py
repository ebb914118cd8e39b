"""Tests differences between two revisions' answers to the same rows: `python -m stages.revisions` reads a JSON request from stdin.

The request has the evaluations that two revisions share, each with the files of both revisions' predictions by task. The answer on stdout
has every difference with the paired test of evaluations, corrected over all comparisons of one metric in the request, and what could not
be tested, with the reason. Nothing is written, and no code of answers is run.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages import evaluate
from stages.process.quiet import keep_quiet

_DIGITS = 6
"""Decimal digits of metrics, as evaluations record them."""


def main() -> int:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    keep_quiet()
    json.dump(compare(request), sys.stdout, ensure_ascii=True)
    return 0


def compare(request: Mapping[str, Any]) -> dict[str, Any]:
    """The differences of all evaluations of the REQUEST, new minus old, with corrected p-values, and what was not tested."""
    from stages.statistics.resampling import CORRECTIONS

    found: list[dict[str, Any]] = []
    untested: list[dict[str, Any]] = []
    for evaluation in request["evaluations"]:
        try:
            parameters = evaluate.Parameters.model_validate(with_tuples(evaluation["parameters"]))
        except ValidationError:
            untested.append({"step": evaluation["step"], "task": None, "why": "its recipe is that of another version"})
            continue
        for task, files in evaluation["tasks"].items():
            own = {"step": evaluation["step"], "task": task}
            try:
                found += [own | one for one in _differences(parameters, task, files, request["titles"])]
            except UserError as error:
                untested.append(own | {"why": error.problems[0].what})
    families: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        families[one["metric"], one["correction"]].append(one)
    for (_, correction), family in families.items():
        corrected = CORRECTIONS[correction]([one["p"] for one in family])
        for one, p in zip(family, corrected, strict=True):
            one |= {"p_corrected": round(p, _DIGITS), "significant": p < 1 - one["confidence"]}
    return {"compared": found, "untested": untested}


def _differences(
    parameters: evaluate.Parameters, task: str, files: Mapping[str, Mapping[str, str]], titles: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Every difference on the rows of TASK that both revisions answered; raises UserError if they answered no such rows."""
    from stages.evaluate.judgements import with_judgements
    from stages.evaluate.metrics.judge_scores import JudgeScores
    from stages.evaluate.pairing import Pair
    from stages.evaluate.scores import measure
    from stages.rows.predictions import read_predictions

    judge = next((metric for metric in parameters.metrics if isinstance(metric, JudgeScores)), None)
    judged = judge is not None and all("judgements" in files[side] for side in ("old", "new"))
    metrics = [metric for metric in parameters.metrics if metric is not judge or judged]
    rows = {}
    for side in ("old", "new"):
        rows[side] = read_predictions(Path(files[side]["predictions"]), task)
        if judge and judged:
            rows[side] = with_judgements(rows[side], Path(files[side]["judgements"]), judge)
    # In messages, a revision stands for its file.
    new_at, old_at = Path(titles["new"]), Path(titles["old"])
    whole = {side: measure(rows[side], metrics, at) for side, at in (("new", new_at), ("old", old_at))}
    values = {side: one.values(one.rows.sum(0)) for side, one in whole.items()}
    common = dict(zip(("new", "old"), Pair(rows["new"], rows["old"], new_at, old_at).common(), strict=True))
    ours, others = (
        whole[side] if common[side] == rows[side] else measure(common[side], metrics, at) for side, at in (("new", new_at), ("old", old_at))
    )
    settings = parameters.statistics
    for metric, difference in ours.differences(others, settings).items():
        told = {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in asdict(difference).items()}
        of_all = {side: round(float(values[side][metric]), _DIGITS) for side in ("old", "new")}
        counts = {"of_rows": {side: len(rows[side]) for side in ("old", "new")}}
        yield {"metric": metric, **told, "values": of_all, **counts, "confidence": settings.confidence, "correction": settings.correction}


if __name__ == "__main__":
    sys.exit(main())
