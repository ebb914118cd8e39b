"""Whether a training on preferences lets answers run away: far longer than before, no longer ended, or nearly empty.

What a model writes is known only once it is asked: a training sees the lengths of the answers in its rows alone. So the evaluation tells,
which compares with the model that the training starts from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGER = 1.5
"""Times the mean length of the answers before, and of the chosen answers, from which on answers run away."""
UNENDED = 0.1
"""Fall of the share of answers that end before their limit, from which on they run away."""
EMPTY = 1.0
"""Mean length in tokens, below which answers are nearly empty."""
_BIASED = 1.1
"""Times the mean length of the rejected answers, from which on chosen ones teach to write longer."""


@dataclass(frozen=True)
class Warned:
    """What is probably wrong with the answers of an experiment, and what to try."""

    what: str
    hint: str


@dataclass(frozen=True)
class Learned:
    """What the answers of an experiment are judged by."""

    experiment: str
    start: Sequence[str]
    """The names under which comparisons have the model that the training starts from."""
    held_out: Mapping[str, Mapping[str, float]]
    """What the objective measured of validation rows, by task."""
    remedy: str
    """What its objective can do, as in `raise training.objective.beta`."""


def run_away(learned: Learned, comparisons: Sequence[Mapping[str, Any]]) -> tuple[Warned, ...]:
    """A warning for each task whose answers have run away, by the significant differences among COMPARISONS with the start."""
    by_task: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in comparisons:
        if one["other"] in learned.start and one["real"]:
            by_task.setdefault(one["task"], {})[one["metric"]] = one
    return tuple(warned for task, found in by_task.items() for warned in _of_task(learned, task, found))


def _of_task(learned: Learned, task: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Warned]:
    whose = f"{learned.experiment}: answers on {task}"
    if (length := found.get("length")) and _is_longer(length, learned.held_out.get(task, {})):
        times = f"{length['value'] / length['other_value']:.1f} times as long" if length["other_value"] else "longer"
        yield Warned(f"{whose} have become {times}: {_between(length)}", "; ".join(_shorter(learned)))
    elif length and length["value"] < EMPTY <= length["other_value"]:
        hint = "; ".join(["look at the chosen answers (engine preview)", *_milder(learned)])
        yield Warned(f"{whose} have become nearly empty: {_between(length)}", hint)
    if (ended := found.get("eos_rate")) and ended["difference"] <= -UNENDED:
        # Where a limit cuts answers off, their lengths say little.
        what = f"{whose} end less often: {ended['value']:.0%} of them within tasks.{task}.max_new_tokens, of those of {ended['other']}"
        yield Warned(f"{what} {ended['other_value']:.0%}", "; ".join(_shorter(learned)))


def _is_longer(length: Mapping[str, Any], given: Mapping[str, float]) -> bool:
    """Whether answers are far longer than before, and than the chosen answers that were to be learned."""
    return bool(length["value"] > LONGER * max(length["other_value"], given.get("chosen_tokens", 0.0)))


def _between(length: Mapping[str, Any]) -> str:
    return f"{length['value']:.1f} tokens on average, those of {length['other']} {length['other_value']:.1f}"


def _milder(learned: Learned) -> list[str]:
    return [*([learned.remedy] if learned.remedy else []), "decrease training.learning_rate, or train for fewer steps"]


def _shorter(learned: Learned) -> Iterator[str]:
    sides = [(values["chosen_tokens"], values["rejected_tokens"]) for values in learned.held_out.values() if "chosen_tokens" in values]
    chosen, rejected = max(sides, key=lambda side: side[0] - side[1], default=(0.0, 0.0))
    if rejected and chosen > _BIASED * rejected:
        told = f"its chosen answers are {chosen / rejected:.1f} times as long as the rejected ones: take pairs of like lengths"
        yield f'{told}, or score against length ({{ metric = "length", weight = -0.01 }})'
    yield from _milder(learned)
    yield 'or an objective that counts log-probabilities per token (simpo, or dpo with loss = "ipo")'
