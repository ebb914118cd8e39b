"""Body of pair: scores every answer, ranks the answers to each prompt, and writes pairs and ranked answers."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from engine.core.errors import Location, UserError, did_you_mean
from stages.evaluate.judgements import with_judgements
from stages.evaluate.metrics.judge_scores import Judged, JudgeScores
from stages.pair import Criterion, Parameters
from stages.process.hashing import content_hash
from stages.process.job import Job, Metrics
from stages.rows.jsonl import read_objects, write_rows
from stages.rows.messages import inline_reasoning
from stages.rows.prediction import Prediction
from stages.rows.predictions import read_predictions
from stages.rows.rows import Row, parse_row

DIGITS = 6
"""Decimal digits of scores; differences beyond them are ties."""


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt, with its score."""

    said: Prediction
    score: float
    models: tuple[int, ...]
    """Positions of the models that gave it, in the order of the spec."""

    @property
    def text(self) -> str:
        """The answer with its reasoning, as the model wrote it."""
        return (self.said.reasoning or "") + (self.said.answer or "")


@dataclass(frozen=True)
class Prompt:
    """A row whose prompt was answered, the split that it is in, and its distinct answers, the best first."""

    row: Row
    split: str
    answers: tuple[Answer, ...]


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `pairs.jsonl` (`prompt`, `chosen`, `rejected`) and `answers.jsonl` (each answer that ended, with score and rank).

    Every row keeps the split of its prompt. There may be no pairs: the answers are of use without.
    """
    counts: Counter[str] = Counter()
    # Roles are answers/NUMBER/NAME/SAMPLE, with the position of the model among those of the spec.
    names = {int(number): name for number, name, _ in (role.split("/") for role in job.group("answers"))}
    prompts = list(_ranked(job, _answers(parameters, job, counts), counts))
    ranked = [row for prompt in prompts for row in _ranked_rows(prompt)]
    pairs, left_out = [], Counter[str]()
    for prompt in prompts:
        found = list(_pairs(prompt.answers, parameters))
        pairs += [(prompt, chosen, rejected) for chosen, rejected in found]
        if not found:
            left_out[_why_none(prompt.answers, parameters)] += 1
    write_rows(job.output / "answers.jsonl", ranked)
    write_rows(job.output / "pairs.jsonl", [_pair_row(*pair) for pair in pairs])
    cut_off = sum(not rejected.said.ended for _, _, rejected in pairs)
    return {
        "prompts": len(prompts),
        "pairs": len(pairs),
        "left_out": dict(sorted(left_out.items())),
        **({"rejected_cut_off": cut_off} if cut_off else {}),
        "answers": dict(sorted(counts.items())),
        "margin": _mean([chosen.score - rejected.score for _, chosen, rejected in pairs]),
        "chosen_tokens": _mean([chosen.said.tokens for _, chosen, _ in pairs]),
        "rejected_tokens": _mean([rejected.said.tokens for _, _, rejected in pairs]),
        "models": {name: _of_model(number, prompts, pairs) for number, name in sorted(names.items())},
    }


def _answers(parameters: Parameters, job: Job, counts: Counter[str]) -> dict[str, list[Answer]]:
    """The usable answers by the id of their row, perhaps none; the others are counted."""
    found: dict[str, list[Answer]] = defaultdict(list)
    judge = next((one.metric for one in parameters.scores if isinstance(one.metric, JudgeScores)), None)
    for role, path in job.group("answers").items():
        said = read_predictions(path, parameters.task)
        if judge:
            said = list(with_judgements(said, job.inputs[f"judge/answers/{role}"], judge))
        counts["read"] += len(said)
        for one, score in zip(said, scores(parameters.scores, said, path), strict=True):
            usable = found[one.id]
            if reason := _unusable(one):
                counts[reason] += 1
            else:
                usable.append(Answer(one, round(float(score), DIGITS), (int(role.partition("/")[0]),)))
    return found


def scores(criteria: Sequence[Criterion], answers: Sequence[Prediction], path: Path) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """The score of each answer, float64 [answers]; PATH locates errors; raises UserError if a metric lacks the value or a reference."""
    total = np.zeros(len(answers))
    for criterion in criteria:
        metric = criterion.metric
        if metric.needs_reference and (lacking := next((n for n, one in enumerate(answers, 1) if one.reference is None), None)):
            what = f"metric '{metric.kind}' needs references, and row {answers[lacking - 1].id} has none"
            raise UserError(what, Location(str(path), lacking), "score the answers by another metric, or by the judge")
        values = {statistic.name: statistic for statistic in metric.measure(answers)} if answers else {}
        if answers and criterion.value not in values:
            raise UserError(f"metric '{metric.kind}' has no value '{criterion.value}'", hint=did_you_mean(criterion.value, values))
        if answers:
            statistic = values[criterion.value]
            total += criterion.weight * statistic.value(np.asarray(statistic.rows, np.float64))
    return total


def _unusable(one: Prediction) -> str | None:
    """Why an answer can be neither chosen nor rejected; None if it can."""
    if one.calls:
        return "calls tools"
    if not (one.answer or "").strip():
        return "empty"
    return "not judged" if isinstance(one, Judged) and one.scores is None else None


def _ranked(job: Job, found: Mapping[str, list[Answer]], counts: Counter[str]) -> Iterator[Prompt]:
    """The answered prompts in the order of their rows; of equal answers one is left, one that ended if there is one.

    Ties are broken by the text: neither the order of models nor that of samples prefers an answer.
    """
    for split, path in job.group("rows").items():
        for where, read in read_objects(path):
            row = parse_row(read, where, unanswered=True)
            if row.id not in found:
                continue
            distinct: dict[str, Answer] = {}
            for answer in found[row.id]:
                text = answer.text.strip()
                if (known := distinct.setdefault(text, answer)) is not answer:
                    counts["equal to another"] += 1
                    kept = answer if answer.said.ended and not known.said.ended else known
                    distinct[text] = replace(kept, models=tuple(dict.fromkeys((*kept.models, *known.models, *answer.models))))
            yield Prompt(row, split, tuple(sorted(distinct.values(), key=_rank)))


def _rank(answer: Answer) -> tuple[float, str]:
    return -answer.score, content_hash(answer.said.id, answer.text)


def _pairs(answers: Sequence[Answer], parameters: Parameters) -> Iterator[tuple[Answer, Answer]]:
    """Chosen and rejected answers to one prompt; one that was cut off at the limit is never chosen: it would teach where to break off."""
    chosen = [one for one in answers if one.said.ended]
    if parameters.combine == "best_worst":
        chosen, answers = chosen[:1], answers[-1:]
    for better in chosen:
        for worse in answers:
            if _suffices(better.score - worse.score, parameters):
                yield better, worse


def _why_none(answers: Sequence[Answer], parameters: Parameters) -> str:
    if len(answers) < 2:
        return "with one distinct answer" if answers else "without a usable answer"
    best = next((one.score for one in answers if one.said.ended), None)
    if best is None:
        return "with no answer that ended"
    worst = answers[-1].score
    if not _suffices(best - worst, parameters) and _suffices(answers[0].score - worst, parameters):
        return "with better answers cut off"
    return "tied" if answers[0].score <= worst else "within min_margin"


def _suffices(difference: float, parameters: Parameters) -> bool:
    """Whether two answers with this DIFFERENCE of their scores make a pair."""
    margin = round(difference, DIGITS)
    return margin > 0 and margin >= parameters.min_margin


def _pair_row(prompt: Prompt, chosen: Answer, rejected: Answer) -> dict[str, Any]:
    return {
        **_placed(prompt),
        **_asked(prompt.row),
        "chosen": _said(prompt.row, chosen),
        "rejected": _said(prompt.row, rejected),
        # A cut-off answer has no end: trainings must not learn one.
        **({} if rejected.said.ended else {"rejected_ended": False}),
        "chosen_score": chosen.score,
        "rejected_score": rejected.score,
        "margin": round(chosen.score - rejected.score, DIGITS),
        "chosen_of": chosen.models[0],
        "rejected_of": rejected.models[0],
    }


def _ranked_rows(prompt: Prompt) -> Iterator[dict[str, Any]]:
    """The answers to one prompt that ended, as rows to learn from, with ranks from 1."""
    ended = [one for one in prompt.answers if one.said.ended]
    for rank, one in enumerate(ended, 1):
        asked, said = _asked(prompt.row), _said(prompt.row, one)
        tools = {"tools": asked["tools"]} if "tools" in asked else {}
        row = {"messages": [*asked["prompt"], said], **tools} if prompt.row.messages else {**asked, "completion": said}
        yield {**_placed(prompt), **row, "score": one.score, "rank": rank, "of": one.models[0]}


def _placed(prompt: Prompt) -> dict[str, Any]:
    return {"row": prompt.row.id, "group": prompt.row.group, "split": prompt.split}


def _asked(row: Row) -> dict[str, Any]:
    """What was asked, in the form of the row: text with a system prompt, or messages with tools."""
    if row.messages:
        return {
            "prompt": [dict(message) for message in row.question],
            **({"tools": [dict(tool) for tool in row.tools]} if row.tools else {}),
        }
    return {**({"system": row.system} if row.system is not None else {}), "prompt": row.prompt}


def _said(row: Row, answer: Answer) -> str | dict[str, Any]:
    """The answer in the form of the row: text, or a message."""
    if not row.messages:
        return answer.text
    reasoning, rest = inline_reasoning(answer.text)
    return {"role": "assistant", "content": rest} | ({"reasoning_content": reasoning} if reasoning.strip() else {})


def _of_model(number: int, prompts: Sequence[Prompt], pairs: Sequence[tuple[Prompt, Answer, Answer]]) -> dict[str, Any]:
    """How many distinct answers one model gave, also with others, their mean score, and how many were chosen and rejected."""
    scored = [one.score for prompt in prompts for one in prompt.answers if number in one.models]
    return {
        "answers": len(scored),
        "score": _mean(scored),
        "chosen": sum(number in chosen.models for _, chosen, _ in pairs),
        "rejected": sum(number in rejected.models for _, _, rejected in pairs),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), DIGITS) if values else None
