"""What a trained model is exported as; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.export.formats.gguf import Gguf
from stages.export.formats.gguf_lora import GgufLora
from stages.export.formats.merged import Merged
from stages.export.formats.vllm import Vllm

ExportFormat = Annotated[Gguf | GgufLora | Merged | Vllm, Field(discriminator="kind"), named]
