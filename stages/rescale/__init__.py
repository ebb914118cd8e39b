"""rescale: write a model whose rotary positions are scaled, for a longer context."""

from engine.core.part import Kind, Part, recipe
from stages.rescale.scalings import Scaling


class Parameters(Part):
    """How the rotary positions of a model are scaled."""

    rope_scaling: Scaling = recipe(description="The scaling of rotary positions.")


KIND = Kind("rescale", "Write a model with scaled rotary positions.", Parameters, environment=("transformers",))
