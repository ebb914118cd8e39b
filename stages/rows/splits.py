"""The split of a group of rows, a pure function of the group and a seed, shared by all steps that need it."""

from typing import Protocol

from stages.process.hashing import fraction

SPLITS = ("train", "validation", "test")


class Shares(Protocol):
    """The shares of the held-out splits, and the seed."""

    @property
    def validation(self) -> float: ...

    @property
    def test(self) -> float: ...

    @property
    def seed(self) -> int: ...


def split_of(group: str, shares: Shares) -> str:
    """The split of every row of GROUP: its hash in [0, 1) is in test at the lower end, validation at the upper end, train in between.

    With test and validation at opposite ends, changing one share moves rows only between that split and train.
    """
    position = fraction("split", shares.seed, group)
    if position < shares.test:
        return "test"
    return "validation" if position >= 1 - shares.validation else "train"
