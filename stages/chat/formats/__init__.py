"""How rows become text; one member per file. Training and evaluation render with the same code."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain

Format = Annotated[Plain | Chat, Field(discriminator="kind"), named]
