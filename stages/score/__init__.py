"""score: the few numbers by which an experiment is compared with others, from the metrics of its evaluation and its training."""

from engine.core.part import Kind, Part, recipe

WITHOUT_BETTER = {"length", "copy_rate", "novelty"}
"""Metrics of which neither higher nor lower values are better in general."""


class Parameters(Part):
    """Which metrics are kept, and over which tasks they are averaged."""

    metrics: tuple[str, ...] = recipe(description="Names of the metrics, the most important one first.", min_length=1)
    tasks: tuple[str, ...] = recipe(description="Tasks over which each metric is averaged.", min_length=1)


KIND = Kind("score", "Average the metrics of an experiment over its tasks, for `dvc metrics` and `dvc exp show`.", Parameters)
