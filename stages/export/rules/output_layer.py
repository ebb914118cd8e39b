"""The output layer is the embeddings' matrix in the export if and only if it is in the trained model, as far as the file says."""

from collections.abc import Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """Raises Differs if the matrix of the output layer is lost, or was made anew."""
    if why := runtime.output_layer:
        raise Differs(f"{why}: {asked[0]} would be answered from another matrix")
    return {}
