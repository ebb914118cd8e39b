"""Where rows come from; one member a file."""

from typing import Annotated

from pydantic import Field

from engine.part import named
from stages.generate.sources.csv import Csv
from stages.generate.sources.hub import Hub
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.parquet import Parquet
from stages.generate.sources.synthetic import Synthetic
from stages.generate.sources.task import TaskRows
from stages.generate.sources.text import Text

Source = Annotated[Csv | Hub | Json | Jsonl | Parquet | Synthetic | TaskRows | Text, Field(discriminator="kind"), named]
