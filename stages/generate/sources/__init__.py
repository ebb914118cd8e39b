"""Where rows come from; one member a file."""

from typing import Annotated

from pydantic import Field

from engine.part import named
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.synthetic import Synthetic

Source = Annotated[Jsonl | Synthetic, Field(discriminator="kind"), named]
