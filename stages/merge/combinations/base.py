"""What every way to combine adapters answers: what peft is asked for."""

from typing import Any, ClassVar

from engine.core.part import Part


class Combining(Part):
    """How the updates of several adapters become one."""

    kind: str
    equal_ranks: ClassVar[bool] = False
    """Whether the adapters must have one rank, since their factors are combined number by number."""

    def options(self) -> dict[str, Any]:
        """The arguments of peft's `add_weighted_adapter`, beside the adapters and their weights."""
        raise AssertionError(f"{type(self).__name__} has no options")


class ByFactor(Combining):
    """Works on the two factors of each update apart, as peft does, and drops some of their numbers first."""

    equal_ranks: ClassVar[bool] = True
