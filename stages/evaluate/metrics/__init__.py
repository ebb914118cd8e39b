"""Metrics of answers; one member per file.

A member's `measure(predictions)` returns its values as statistics (see `statistic`); `needs_reference` says whether it requires one.
"""

from typing import Annotated

from pydantic import Field

from engine.core.part import named
from stages.evaluate.metrics.bleu import Bleu
from stages.evaluate.metrics.chrf import Chrf
from stages.evaluate.metrics.classification import Classification
from stages.evaluate.metrics.copy_rate import CopyRate
from stages.evaluate.metrics.eos_rate import EosRate
from stages.evaluate.metrics.exact_match import ExactMatch
from stages.evaluate.metrics.json_validity import JsonValidity
from stages.evaluate.metrics.judge_scores import JudgeScores
from stages.evaluate.metrics.length import Length
from stages.evaluate.metrics.novelty import Novelty
from stages.evaluate.metrics.perplexity import Perplexity
from stages.evaluate.metrics.rouge import Rouge
from stages.evaluate.metrics.runaway_rate import RunawayRate
from stages.evaluate.metrics.token_f1 import TokenF1
from stages.evaluate.metrics.tool_calls import ToolCalls
from stages.evaluate.metrics.unit_tests import UnitTests

Given = (
    Bleu
    | Chrf
    | Classification
    | CopyRate
    | EosRate
    | ExactMatch
    | JsonValidity
    | Length
    | Novelty
    | Perplexity
    | Rouge
    | RunawayRate
    | TokenF1
    | ToolCalls
    | UnitTests
)
"""The metrics, as members of a family."""

Metric = Annotated[Given, Field(discriminator="kind"), named]
"""Metrics that a spec may list."""

AnyMetric = Annotated[Given | JudgeScores, Field(discriminator="kind"), named]
"""Metrics of a step: with `[evaluation.judge]`, also the judge's scores."""
