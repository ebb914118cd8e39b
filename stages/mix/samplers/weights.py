"""Shares given by hand."""

from typing import Annotated, Literal

from pydantic import Field

from engine.part import Part, recipe


class Weights(Part):
    """Shares of rows given by hand, one weight for each task of the mixture."""

    kind: Literal["weights"] = "weights"
    weights: dict[str, Annotated[float, Field(gt=0)]] = recipe(description="Relative share of each task, in rows.", min_length=1)

    def rows_per_epoch(self, rows: dict[str, int]) -> dict[str, int]:
        """How many rows each task gives to an epoch of as many rows as all tasks have together (rounded, at least one)."""
        total, weight = sum(rows.values()), sum(self.weights[task] for task in rows)
        return {task: max(1, round(total * self.weights[task] / weight)) for task in rows}
