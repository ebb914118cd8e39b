"""Masks: which tokens are supervised; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.tokenize.masks.assistant import Assistant
from stages.tokenize.masks.completion import Completion
from stages.tokenize.masks.delimited import Delimited
from stages.tokenize.masks.full import Full

Mask = Annotated[Assistant | Completion | Delimited | Full, Field(discriminator="kind"), named]
