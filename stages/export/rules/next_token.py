"""The probabilities of the next token, before and after the answer, differ by no more than the precision of the weights explains."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import TOP, Runtime

DIGITS, LEAST = 3, 1e-9
"""Significant digits of a divergence, and what is no divergence but rounding."""


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """The largest divergence in nats and its limit; raises Differs if it is larger."""
    worst, row, place = 0.0, asked[0], "first"
    for one in asked:
        prompt = one.question.prompt
        for position, reference, ids in (("first", one.before, prompt), ("last", one.after, [*prompt, *one.said.ids])):
            apart = divergence(reference, runtime.next_tokens(ids))
            if not apart <= worst:
                worst, row, place = apart, one, position
    if not worst <= limits.divergence:
        what = f"the probabilities of the {place} token of {row} diverge by {worst:.3g} nats, more than {limits.divergence:g}"
        hint = "that is more than its precision explains: use a format of more bits, or set max_divergence of this format"
        raise Differs(what, hint)
    return {"divergence": float(f"{worst:.{DIGITS}g}") if worst > LEAST else 0.0, "max_divergence": limits.divergence}


def divergence(reference: Mapping[int, float], found: Mapping[int, float]) -> float:
    """Kullback-Leibler divergence (nats) of FOUND from REFERENCE, both log-probabilities by token.

    Compares the largest of the reference, and all others together, which bounds the divergence of all tokens from below. A token that FOUND
    lacks has at most its smallest probability.
    """
    if not all(map(math.isfinite, (*reference.values(), *found.values()))):
        return math.inf
    top = sorted(reference, key=lambda token: -reference[token])[:TOP]
    least = min(found.values())
    ours = [math.exp(reference[token]) for token in top]
    theirs = [math.exp(found.get(token, least)) for token in top]
    rest = [max(1 - sum(shares), 1e-12) for shares in (ours, theirs)]
    return max(sum(a * math.log(a / b) for a, b in zip([*ours, rest[0]], [*theirs, rest[1]], strict=True) if a > 0), 0.0)
