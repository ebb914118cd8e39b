"""The interface of combinations: arguments for peft."""

from typing import Any, ClassVar

from engine.core.part import Part


class Combining(Part):
    """How the updates of several adapters are combined."""

    kind: str
    equal_ranks: ClassVar[bool] = False
    """Whether the adapters must have equal ranks, since their factors are combined element by element."""

    def options(self) -> dict[str, Any]:
        """Arguments of peft's `add_weighted_adapter`, except the adapters and their weights."""
        raise AssertionError(f"{type(self).__name__} has no options")


class ByFactor(Combining):
    """Combines the two factors of each update separately, as peft does, after dropping some of their elements."""

    equal_ranks: ClassVar[bool] = True
