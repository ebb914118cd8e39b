"""Where rows come from; one member a file."""

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
"""What a spec may name."""

AnySource = Annotated[_Given | Predictions, Field(discriminator="kind"), named]
"""What a step may read: answers are the matter of an evaluation, which wires them itself."""
