"""The models of a server, and the names by which requests choose them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts.addresses import PROVENANCE, SHORTEST
from engine.core.digests import short
from engine.core.errors import UserError
from engine.identity.provenance import parse

if TYPE_CHECKING:
    from engine.rows.answers import Model


@dataclass(frozen=True)
class Served:
    """A model of the server."""

    model: "Model"
    digest: str | None
    """Content address of its adapter, or of the model itself; None for a folder without provenance."""
    base: str
    """Name of the folder with the weights below it."""
    made: int
    """When its weights were written, in seconds since 1970."""

    @classmethod
    def of(cls, model: "Model") -> "Served":
        """MODEL with its content address, which is stated next to the folder of its adapter or of the whole model."""
        inputs = {role: Path(path) for role, path in model.request["inputs"].items()}
        folder = inputs.get("adapter", inputs["model"])
        beside = folder.with_name(folder.name + PROVENANCE)
        told = parse(beside.read_bytes()) if beside.is_file() else None
        return cls(model, told.digest if told else None, inputs["model"].name, int(folder.stat().st_mtime))

    @property
    def ids(self) -> tuple[str, ...]:
        """The names that `/v1/models` lists: the experiment's, and the same with the content address, which only this build answers to."""
        return (self.model.name, *([f"{self.model.name}@{short(self.digest)}"] if self.digest else []))

    def answers_to(self, name: str) -> bool:
        """Whether NAME is the experiment's name, the beginning of the content address, or both with `@` between."""
        experiment, at, address = name.rpartition("@")
        if name == self.model.name:
            return True
        wanted = address.removeprefix("sha256:")
        begins = len(wanted) >= SHORTEST and (self.digest or "").removeprefix("sha256:").startswith(wanted)
        return begins and (not at or experiment == self.model.name)

    def as_data(self, name: str) -> dict[str, Any]:
        """The object of `/v1/models` that lists it under NAME."""
        return {
            "id": name,
            "object": "model",
            "created": self.made,
            "owned_by": "adapterbuild",
            "digest": self.digest,
            "base": self.base,
            "tasks": list(self.model.tasks),
        }


@dataclass(frozen=True)
class Choice:
    """All models of a server."""

    models: Sequence[Served]

    def of(self, name: str) -> Served | None:
        """The model that a request names; None if there is none, or if a content address is that of several."""
        found = [one for one in self.models if one.model.name == name] or [one for one in self.models if one.answers_to(name)]
        return found[0] if len(found) == 1 else None

    def as_data(self) -> list[dict[str, Any]]:
        """All names with their models, for `/v1/models`."""
        return [one.as_data(name) for one in self.models for name in one.ids]


def together(models: "Sequence[Model]") -> Choice:
    """MODELS as one server's; raises UserError where their numerics differ, since those are a process's."""
    by_numerics: Mapping[str, Model] = {model.numerics: model for model in models}
    if len(by_numerics) > 1:
        one, other = list(by_numerics.values())[:2]
        what = f'{one.name} has resources.numerics = "{one.numerics}", and {other.name} has "{other.numerics}"'
        raise UserError(what, hint="start a server for each: engine serve EXPERIMENT …")
    return Choice([Served.of(model) for model in models])
