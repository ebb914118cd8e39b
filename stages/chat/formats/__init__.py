"""How rows become text; one member a file. Training and evaluation render with the same code."""

from typing import Annotated

from pydantic import Field

from engine.part import named
from stages.common.formats.chat import Chat
from stages.common.formats.plain import Plain

Format = Annotated[Plain | Chat, Field(discriminator="kind"), named]
