"""Which split a group of rows belongs to: a pure function of the group and a seed, the same for everything that must know it."""

from typing import Protocol

from stages.process.hashing import fraction

SPLITS = ("train", "validation", "test")


class Shares(Protocol):
    """How much is held out."""

    @property
    def validation(self) -> float: ...

    @property
    def test(self) -> float: ...

    @property
    def seed(self) -> int: ...


def split_of(group: str, shares: Shares) -> str:
    """The split of every row of GROUP: test takes the lower end of [0, 1), validation the upper end, train what lies between.

    One end each, so that a changed share moves rows between that split and train only.
    """
    position = fraction("split", shares.seed, group)
    if position < shares.test:
        return "test"
    return "validation" if position >= 1 - shares.validation else "train"
