"""Teachers, who write the completions; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.generate.teachers.chat import Chat
from stages.generate.teachers.gold import Gold
from stages.generate.teachers.local import Local
from stages.generate.teachers.rules import Rules

Teacher = Annotated[Chat | Gold | Local | Rules, Field(discriminator="kind"), named]
