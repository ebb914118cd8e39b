"""A curriculum: phases in order, each with its own tasks and shares (Bengio et al., 2009, "Curriculum learning")."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from engine.core.part import Name, Part, named, recipe
from stages.mix.samplers.equal import Equal
from stages.mix.samplers.proportional import Proportional
from stages.mix.samplers.sizes import Phase, Size
from stages.mix.samplers.temperature import Temperature
from stages.mix.samplers.weights import Weights


class Stage(Part):
    """One phase of a curriculum: its tasks, shuffled together."""

    tasks: tuple[Name, ...] = recipe((), "Tasks of this phase; if empty, all tasks of the mixture.")
    sampler: Annotated[Equal | Proportional | Temperature | Weights, Field(discriminator="kind"), named] = recipe(
        Proportional(), "How many rows of each task are in this phase."
    )
    epochs: float = recipe(1.0, "Number of the sampler's epochs in this phase; 0.5 is half of the rows.", gt=0)


class Curriculum(Part):
    """Phases in order; one epoch of the mixture consists of all of them."""

    kind: Literal["curriculum"] = "curriculum"
    stages: tuple[Stage, ...] = recipe(description="The phases, in order.", min_length=1)

    def named_tasks(self) -> set[str]:
        """The tasks that this sampler names."""
        return {name for stage in self.stages for name in {*stage.tasks, *stage.sampler.named_tasks()}}

    def phases(self, tasks: Mapping[str, Size]) -> tuple[Phase, ...]:
        """Rows of each task in each phase of an epoch, from the tasks' sizes."""
        return tuple(phase for stage in self.stages for phase in self._stage(stage, tasks))

    def _stage(self, stage: Stage, tasks: Mapping[str, Size]) -> tuple[Phase, ...]:
        chosen = {name: tasks[name] for name in stage.tasks} if stage.tasks else tasks
        return tuple({name: max(1, round(rows * stage.epochs)) for name, rows in phase.items()} for phase in stage.sampler.phases(chosen))
