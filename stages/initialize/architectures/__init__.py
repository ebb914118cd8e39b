"""Architectures of from-scratch models; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.initialize.architectures.bloom import Bloom
from stages.initialize.architectures.falcon import Falcon
from stages.initialize.architectures.gpt2 import Gpt2
from stages.initialize.architectures.gpt_neox import GptNeox
from stages.initialize.architectures.llama import Llama
from stages.initialize.architectures.mistral import Mistral
from stages.initialize.architectures.qwen2 import Qwen2
from stages.initialize.architectures.qwen3 import Qwen3
from stages.initialize.architectures.t5 import T5

Architecture = Annotated[Bloom | Falcon | Gpt2 | GptNeox | Llama | Mistral | Qwen2 | Qwen3 | T5, Field(discriminator="kind"), named]
