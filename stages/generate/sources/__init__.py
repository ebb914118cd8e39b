"""Sources of rows; one member per file."""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.generate.sources.best_of import BestOf
from stages.generate.sources.csv import Csv
from stages.generate.sources.hub import Hub
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.pairs import Pairs
from stages.generate.sources.parquet import Parquet
from stages.generate.sources.synthetic import Synthetic
from stages.generate.sources.task import TaskRows
from stages.generate.sources.text import Text

Members = BestOf | Csv | Hub | Json | Jsonl | Pairs | Parquet | Synthetic | TaskRows | Text
"""The sources that a spec may use; `predictions` and `duels`, which compiling an evaluation wires, are none of them."""

Source = Annotated[Members, Field(discriminator="kind"), named]
