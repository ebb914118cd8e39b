"""Dynamic NTK scaling: the base of the frequencies grows with the length of the text, so that short texts are as before."""

from typing import Literal

from stages.rescale.scalings.base import RopeScaling


class Dynamic(RopeScaling):
    """The base of the frequencies grows with the text, beyond the original context only."""

    kind: Literal["dynamic"] = "dynamic"
