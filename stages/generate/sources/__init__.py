"""Sources of rows; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.generate.sources.csv import Csv
from stages.generate.sources.hub import Hub
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.parquet import Parquet
from stages.generate.sources.predictions import Predictions
from stages.generate.sources.synthetic import Synthetic
from stages.generate.sources.task import TaskRows
from stages.generate.sources.text import Text

_Given = Csv | Hub | Json | Jsonl | Parquet | Synthetic | TaskRows | Text

Source = Annotated[_Given, Field(discriminator="kind"), named]
"""Sources that a spec may use."""

AnySource = Annotated[_Given | Predictions, Field(discriminator="kind"), named]
"""Sources of a step: also a model's answers, which compiling an evaluation wires."""
