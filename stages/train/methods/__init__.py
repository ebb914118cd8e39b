"""Training methods: which weights are trained, and how; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.train.methods.full import Full
from stages.train.methods.ia3 import Ia3
from stages.train.methods.lora import Lora
from stages.train.methods.prefix_tuning import PrefixTuning
from stages.train.methods.prompt_tuning import PromptTuning
from stages.train.methods.qlora import Qlora

Method = Annotated[Full | Ia3 | Lora | PrefixTuning | PromptTuning | Qlora, Field(discriminator="kind"), named]
