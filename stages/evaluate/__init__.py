"""evaluate: metrics say how good the answers of a model are, with intervals, and how they differ from those of others."""

from typing import Literal

from engine.core.part import Kind, Part, recipe
from stages.evaluate.metrics import AnyMetric


class Statistics(Part):
    """How sure the numbers are."""

    confidence: float = recipe(
        0.95, "How often an interval holds the true value; 1 minus it is what a difference is tested at.", gt=0.5, lt=1
    )
    resamples: int = recipe(10_000, "Resamples of every bootstrap and permutation test.", ge=100)
    correction: Literal["holm", "benjamini_hochberg", "none"] = recipe(
        "holm", "How p-values are corrected for being many: for any false finding, for the share of false findings, or not at all."
    )
    seed: int = recipe(0, "Seed of the resamples.", ge=0, lt=2**63)


class Parameters(Part):
    """What is measured, and with whom a model is compared."""

    model: str = recipe(description="The name of the model that answered.")
    tasks: tuple[str, ...] = recipe(description="The tasks that were asked.", min_length=1)
    held_out: tuple[str, ...] = recipe((), "The tasks that were only read.")
    trained_on: tuple[str, ...] = recipe((), "The tasks that the model was trained on: what becomes of the others is forgetting.")
    metrics: tuple[AnyMetric, ...] = recipe(description="What is measured on the answers.", min_length=1)
    compare: tuple[str, ...] = recipe((), "The models whose answers to the same rows are compared, by name.")
    statistics: Statistics = recipe(Statistics(), "How sure the numbers are.")


KIND = Kind(
    "evaluate",
    "Measure the answers of a model, and compare them with those of others.",
    Parameters,
    environment=("numpy",),
    plots=True,
    plot={"template": "bar_horizontal", "x": "value", "y": "score"},
)
