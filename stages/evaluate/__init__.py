"""evaluate: metrics of a model's answers with confidence intervals, and paired comparisons with other models."""

from typing import Literal

from engine.core.part import Kind, Part, recipe
from stages.evaluate.metrics import AnyMetric


class Statistics(Part):
    """Confidence intervals and significance tests."""

    confidence: float = recipe(
        0.95, "Confidence level of intervals; differences are tested at significance level 1 minus this.", gt=0.5, lt=1
    )
    resamples: int = recipe(10_000, "Resamples of each bootstrap and permutation test.", ge=100)
    correction: Literal["holm", "benjamini_hochberg", "none"] = recipe(
        "holm", "Correction of p-values for multiple comparisons: family-wise error rate (Holm), false discovery rate, or none."
    )
    seed: int = recipe(0, "Seed of the resampling.", ge=0, lt=2**63)


class Parameters(Part):
    """What is measured, and which models are compared."""

    model: str = recipe(description="Name of the evaluated model.")
    tasks: tuple[str, ...] = recipe(description="Tasks that the model answered.", min_length=1)
    held_out: tuple[str, ...] = recipe((), "Tasks of which only the references' likelihood was measured.")
    trained_on: tuple[str, ...] = recipe(
        (), "Tasks that the model was trained on; on the others, a difference from the base is forgetting."
    )
    metrics: tuple[AnyMetric, ...] = recipe(description="Metrics computed on the answers.", min_length=1)
    compare: tuple[str, ...] = recipe((), "Names of the models that are compared on the same rows.")
    statistics: Statistics = recipe(Statistics(), "Confidence intervals and significance tests.")


KIND = Kind(
    "evaluate",
    "Compute metrics of a model's answers, and compare them with other models.",
    Parameters,
    environment=("numpy",),
    plots=True,
    plot={"template": "bar_horizontal", "x": "value", "y": "score"},
)
