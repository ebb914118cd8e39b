"""Architectures that can be created from scratch; one member a file."""

from typing import Annotated

from pydantic import Field

from engine.part import named
from stages.initialize.architectures.bloom import Bloom
from stages.initialize.architectures.falcon import Falcon
from stages.initialize.architectures.gpt2 import Gpt2
from stages.initialize.architectures.llama import Llama

Architecture = Annotated[Bloom | Falcon | Gpt2 | Llama, Field(discriminator="kind"), named]
