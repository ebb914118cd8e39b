"""Samplers, which set the shares of tasks in a mixture; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.mix.samplers.curriculum import Curriculum
from stages.mix.samplers.equal import Equal
from stages.mix.samplers.proportional import Proportional
from stages.mix.samplers.temperature import Temperature
from stages.mix.samplers.weights import Weights

Sampler = Annotated[Curriculum | Equal | Proportional | Temperature | Weights, Field(discriminator="kind"), named]
