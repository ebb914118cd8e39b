"""mix: the order of (task, row) over all rows of a training, without copies of tokens."""

from engine.core.part import Kind, Part, recipe
from stages.mix.samplers import Proportional, Sampler


class Parameters(Part):
    """How the tasks are mixed."""

    sampler: Sampler = recipe(Proportional(), "How many rows of each task are in an epoch.")
    epochs: int | None = recipe(None, "Number of epochs.", gt=0)
    rows: int | None = recipe(None, "Total number of rows (bins, if packed), instead of epochs.", gt=0)
    tokens: int | None = recipe(None, "Total number of tokens, instead of epochs: as many rows as fit.", gt=0)
    bin_tokens: int | None = recipe(None, "Pack rows into bins of this many tokens; if unset, no packing.", gt=1)
    seed: int = recipe(0, "Seed of the order.", ge=0, lt=2**63)


KIND = Kind("mix", "Order the rows of one or several tasks for training.", Parameters, environment=("numpy", "safetensors"))
