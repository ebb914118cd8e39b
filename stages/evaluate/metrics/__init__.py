"""What is measured on answers; one member a file.

A member's `score(predictions)` gives its numbers by name, each a mean over the predictions.
"""

from typing import Annotated

from pydantic import Field

from engine.part import named
from stages.evaluate.metrics.eos_rate import EosRate
from stages.evaluate.metrics.exact_match import ExactMatch
from stages.evaluate.metrics.length import Length
from stages.evaluate.metrics.rouge import Rouge

Metric = Annotated[EosRate | ExactMatch | Length | Rouge, Field(discriminator="kind"), named]
