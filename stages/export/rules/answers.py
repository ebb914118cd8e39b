"""The greedy answers are the trained model's, as far as the precision of the weights allows, and end as they do."""

from collections.abc import Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """The shares of equal answers and of answers that stop; raises Differs if too few are equal."""
    said = [runtime.answer(one.question.prompt, one.question.max_new_tokens) for one in asked]
    other = [(one, found) for one, found in zip(asked, said, strict=True) if found != one.said]
    equal = 1 - len(other) / len(asked)
    if equal < limits.equal_answers:
        one, found = other[0]
        texts = material.encoder.decode([list(found.ids), list(one.said.ids)])
        what = f"{len(other)} of {len(asked)} answers differ, and at least {limits.equal_answers:.0%} must be equal"
        what += f": {one} is answered {texts[0][:60]!r} instead of {texts[1][:60]!r}"
        raise Differs(what, "use a format of more bits, or set min_equal_answers of this format")
    return {
        "rows": len(asked),
        "equal_answers": round(equal, 4),
        "min_equal_answers": limits.equal_answers,
        "stopped": sum(found.stopped for found in said),
        "stopped_in_training": sum(one.said.stopped for one in asked),
    }
