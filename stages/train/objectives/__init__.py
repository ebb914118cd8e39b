"""Objectives: what a training minimises; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.train.objectives.distill import Distill
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.kto import Kto
from stages.train.objectives.orpo import Orpo
from stages.train.objectives.simpo import Simpo
from stages.train.objectives.supervised import Supervised

Objective = Annotated[Distill | Dpo | Kto | Orpo | Simpo | Supervised, Field(discriminator="kind"), named]
