"""The program ends an answer at every token at which the evaluation does."""

from collections.abc import Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """Raises Differs for an end token at which the program goes on."""
    for token in material.ends:
        if not runtime.stops_at(token):
            (text,) = material.encoder.decode([[token]])
            ended = next((one for one in asked if one.said.stopped), asked[0])
            raise Differs(f"{runtime.name} does not stop at {text!r} ({token}), which ends answers: {ended} would be answered without end")
    return {}
