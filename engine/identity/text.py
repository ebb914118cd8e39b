"""The identity of a step: the only place where recipe, wiring, code and environment become one text."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.digests import canonical, digest, folder_digest, short
from engine.core.gc_pause import without_collection
from engine.core.graph import Graph, Step
from engine.core.memo import shared_path
from engine.core.part import Part, is_resource, parts_in
from engine.identity.behaviours import Behaviours, module_of, unit_of
from engine.identity.behaviours import Code as UnitCode
from engine.identity.code import Code
from engine.identity.environment import Environment

__all__ = ["Identities", "canonical", "digest", "folder_digest", "merge_resources", "recipe_of", "resources_of", "resources_text", "short"]

FORMAT = 2
"""Incremented when the meaning of an identity changes; every step then reruns."""


def recipe_of(part: Part) -> dict[str, Any]:
    """The fields of PART that affect the result, as JSON values; resources are omitted at every level."""
    return {name: _plain(getattr(part, name)) for name, info in type(part).model_fields.items() if not is_resource(info)}


def with_defaults(recipe: Any, value: Any) -> Any:
    """RECIPE, written for an earlier version of VALUE's model, plus the fields added since, as far as VALUE has their defaults.

    A field is added with a default that preserves the previous behaviour; a release that changes behaviour raises the code's revision.
    """
    if isinstance(value, Part) and isinstance(recipe, Mapping):
        fields = {name: info for name, info in type(value).model_fields.items() if not is_resource(info)}
        later = {
            name: _plain(getattr(value, name))
            for name, info in fields.items()
            if name not in recipe and not info.is_required() and getattr(value, name) == info.get_default(call_default_factory=True)
        }
        return later | {name: with_defaults(old, getattr(value, name)) if name in fields else old for name, old in recipe.items()}
    if isinstance(value, Mapping) and isinstance(recipe, Mapping):
        return {name: with_defaults(old, value[name]) if name in value else old for name, old in recipe.items()}
    if isinstance(value, tuple) and isinstance(recipe, list) and len(value) == len(recipe):
        return [with_defaults(old, item) for old, item in zip(recipe, value, strict=True)]
    return recipe


def recipe_parts(part: Part) -> Iterator[Part]:
    """PART and all parts inside it that affect the result; parts inside resources are omitted."""
    yield part
    for name, info in type(part).model_fields.items():
        if not is_resource(info):
            for inner in parts_in(getattr(part, name)):
                yield from recipe_parts(inner)


def resources_of(part: Part) -> dict[str, Any]:
    """The resources of PART at every level, as JSON values; empty if there are none."""
    found = {}
    for name, info in type(part).model_fields.items():
        value = getattr(part, name)
        if is_resource(info):
            found[name] = _plain(value)
        elif isinstance(value, Part) and (inner := resources_of(value)):
            found[name] = inner
    return found


def merge_resources(recipe: Mapping[str, Any], resources: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe and its resources merged into one table of parameters."""
    return {
        name: merge_resources(recipe[name], resources[name])
        if isinstance(recipe.get(name), dict) and isinstance(resources.get(name), dict)
        else recipe[name]
        if name in recipe
        else resources[name]
        for name in {**recipe, **resources}
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return recipe_of(value)
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@dataclass
class Identities:
    """Computes the identities of steps for one state of the code and the environment."""

    code_root: Path
    environment: Environment
    behaviours: Behaviours = field(init=False)
    _code: Code = field(init=False)
    _versions: dict[str, str] = field(default_factory=dict)
    _units: dict[str, UnitCode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.behaviours = Behaviours.of(self.code_root)
        self._code = Code(self.code_root, shared_path("code"))

    def of(self, step: Step) -> dict[str, Any]:
        """Recipe, wiring, code and environment of STEP; the content of its inputs is not included."""
        parts = list(recipe_parts(step.parameters))
        # Each member of a family is a module below its kind; the kind's parameters are in its __init__, which has no code.
        modules = [f"stages.{step.kind.name}.body", *(type(part).__module__ for part in parts)]
        units = self.code(map(unit_of, modules))
        packages = dict.fromkeys([*step.kind.environment, *(name for part in parts for name in part.environment)])
        return {
            "format": FORMAT,
            "kind": step.kind.name,
            "recipe": recipe_of(step.parameters),
            "inputs": {role: item.path for role, item in sorted(step.inputs.items())},
            "code": units,
            "environment": self.behaviours.environment({name: self._version(name) for name in sorted(packages)}, units),
        }

    def code(self, units: Iterable[str]) -> dict[str, UnitCode]:
        """What identities record about UNITS: the revision or the module digests of each; units without code are omitted."""
        found: dict[str, UnitCode] = {}
        for unit in sorted(set(units)):
            if unit not in self._units:
                closure = self._code.closure([module_of(unit)])
                self._units[unit] = self.behaviours.code(unit, closure) if closure else {}
            if self._units[unit] != {}:
                found[unit] = self._units[unit]
        return found

    def _version(self, package: str) -> str:
        if package not in self._versions:
            self._versions[package] = self.environment.version(package)
        return self._versions[package]

    def text(self, step: Step) -> str:
        """The content of the identity file that STEP depends on."""
        return json.dumps(self.of(step), sort_keys=True, indent=1, allow_nan=False) + "\n"

    @without_collection
    def texts(self, graph: Graph) -> dict[str, str]:
        """The content of every step's identity file, by the step's name."""
        texts = {step.name: self.text(step) for step in graph}
        self._code.save()
        return texts


def resources_text(step: Step) -> str:
    """The content of the resources file, which the runner reads and no step depends on: numerics, resources and origin in the specs."""
    content = {"numerics": step.numerics, "origin": str(step.origin), "resources": resources_of(step.parameters)}
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n"
