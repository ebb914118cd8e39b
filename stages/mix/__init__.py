"""mix: one order of (task, row) over all rows that a training sees; it stores no copies of tokens."""

from engine.core.part import Kind, Part, recipe
from stages.mix.samplers import Proportional, Sampler


class Parameters(Part):
    """How the tasks share the training."""

    sampler: Sampler = recipe(Proportional(), "How many rows each task gives to an epoch.")
    epochs: int | None = recipe(None, "How often the mixture is gone through.", gt=0)
    rows: int | None = recipe(None, "Number of rows in all, in place of epochs; where rows are packed, of bins.", gt=0)
    tokens: int | None = recipe(None, "Number of tokens in all, in place of epochs: as many rows as fit.", gt=0)
    bin_tokens: int | None = recipe(None, "Rows are packed into bins of so many tokens; none given: they are not.", gt=1)
    seed: int = recipe(0, "Seed of the order.", ge=0, lt=2**63)


KIND = Kind("mix", "Order the rows of one or several tasks for training.", Parameters, environment=("numpy", "safetensors"))
