"""Linear scaling (position interpolation; Chen et al., 2023, arXiv:2306.15595): all positions are divided by the factor."""

from typing import Literal

from stages.rescale.scalings.base import RopeScaling


class Linear(RopeScaling):
    """Positions are divided by the factor; needs some training."""

    kind: Literal["linear"] = "linear"
