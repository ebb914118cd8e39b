"""The pages of specs, one for each section: every key with its type, its default and what it means, from the models that check specs."""

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from engine.spec.notation import toml
from engine.spec.schema import schema
from engine.spec.sections import Experiment
from tools.markdown import GENERATED, cell, table

Node = dict[str, Any]

_COLUMNS = ("key", "type", "default", "means")
_MOST_KEYS = 2
"""A default table with more keys than this is not printed whole: its own keys say it."""


def pages() -> dict[str, str]:
    """The text of each page by its name."""
    book = _Book(schema(), Experiment.model_json_schema())
    found = {f"{name}.md": text for name, text in ((section, book.page(section)) for section in book.sections)}
    return {"index.md": book.index(), **found}


@dataclass(frozen=True)
class _Place:
    """Where a table of the schema is described: the page of the section that takes it first, below a heading of its own."""

    section: str
    heading: str

    @property
    def anchor(self) -> str:
        """What headings are linked by, on the site and on code hosts."""
        return re.sub(r"[^\w\- ]", "", self.heading.lower()).replace(" ", "-")


@dataclass
class _Book:
    """The schema, cut into pages."""

    whole: Node
    raw: Node
    """The schema before keys that a part may leave out were made optional: it says what a whole spec must have."""
    places: dict[str, _Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in self.sections:
            queue = deque(self._tables(self.whole["properties"][section], section))
            while queue:
                name, heading = queue.popleft()
                if name in self.places:
                    continue
                self.places[name] = _Place(section, heading)
                path = heading.partition(":")[0]
                for key, node in self.whole["$defs"][name].get("properties", {}).items():
                    queue.extend(self._tables(node, f"{path}.{key}"))

    @property
    def sections(self) -> list[str]:
        """The sections in their order; `extends` is a key of its own."""
        return [name for name in self.whole["properties"] if name != "extends"]

    def index(self) -> str:
        """The page that leads to the sections."""
        rows = [
            (f"[`[{name}]`]({name}.md)", "required" if name in self.raw.get("required", []) else "", cell(self._about(name)))
            for name in self.sections
        ]
        extends = self.whole["properties"]["extends"]
        return _text(
            "# Specs",
            GENERATED,
            "A spec is a TOML file: one experiment. These are its sections; a key that no page names is an error.",
            table(("section", "", "holds"), rows),
            table(("key outside the sections", "type", "holds"), [("`extends`", "list of text", cell(extends["description"]))]),
            "A key is **recipe** unless it says that it is a resource: another value makes another result, and reruns exactly the steps\n"
            "that it reaches. A **resource** reruns nothing.",
            'Where a key takes one of several tables, `kind` chooses: `mask = { kind = "assistant", turns = "last" }`. A table in which\n'
            'nothing else is required may be written by its kind alone: `mask = "full"`.',
            "The same for editors: [the JSON Schema](../spec.schema.json). Every value of a spec and the line that it comes from:\n"
            "`engine show SPEC`.",
        )

    def page(self, section: str) -> str:
        """The page of one section."""
        title = f"[{section}.NAME]" if section == "tasks" else f"[{section}]"
        own = [(name, place) for name, place in self.places.items() if place.section == section]
        parts = [f"# {title}", GENERATED]
        if own[0][1].heading not in (section, f"{section}.NAME"):
            parts += [cell(self._about(section)), f"One of: {self._type(self.whole['properties'][section], section)}."]
        for name, place in own:
            definition = self.whole["$defs"][name]
            if place.heading not in (section, f"{section}.NAME"):
                parts.append(f"## {place.heading}")
            parts += [cell(definition.get("description")), self._keys(name, section)]
        return _text(*parts)

    def _about(self, section: str) -> str:
        node = self.whole["properties"][section]
        if "description" in node:
            return str(node["description"])
        return str(self.whole["$defs"][_reference(node)].get("description", ""))

    def _keys(self, name: str, section: str) -> str:
        definition = self.whole["$defs"][name]
        required = self.raw["$defs"].get(name, {}).get("required", [])
        rows = []
        for key, node in sorted(definition.get("properties", {}).items(), key=lambda item: item[0] != "kind"):
            must = key in required or (key == "kind" and "kind" in definition.get("required", []))
            means = cell(node.get("description"))
            if not means and key == "kind":
                means = "Chooses this table."
            elif not means and "$ref" in node:
                means = cell(self.whole["$defs"][_reference(node)].get("description"))
            if node.get("resource") and section != "resources":
                means += " *Resource.*"
            rows.append((f"`{key}`", self._type(node, section), "required" if must else self._default(node), means))
        return table(_COLUMNS, rows) or "It has no keys."

    def _default(self, node: Node) -> str:
        if "default" not in node:
            return ""
        value = node["default"]
        if isinstance(value, dict) and "kind" in value:
            value = value["kind"]
        elif isinstance(value, dict) and len(value) > _MOST_KEYS:
            return "its own"
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = [item.get("kind", item) for item in value]
        return f"`{toml(_tuples(value))}`"

    def _type(self, node: Node, section: str) -> str:
        """What a value of NODE is, for people."""
        if "$ref" in node:
            return self._link(_reference(node), section)
        if "const" in node:
            return f"`{json.dumps(node['const'])}`"
        choices = node.get("anyOf") or node.get("oneOf")
        if choices:
            # The names of a family's members stand in the members' links already.
            members = [self._type(item, section) for item in choices if not (len(choices) > 1 and self._names_only(item, choices))]
            return " or ".join(dict.fromkeys(members))
        if "enum" in node:
            return " or ".join(f"`{json.dumps(item, ensure_ascii=False)}`" for item in node["enum"])
        if "patternProperties" in node:
            (inner,) = node["patternProperties"].values()
            return f"table of names, each {self._type(inner, section)}"
        kind = node.get("type")
        if kind == "array":
            return self._array(node, section)
        if kind == "object":
            inner = node.get("additionalProperties")
            return f"table of names, each {self._type(inner, section)}" if isinstance(inner, dict) and inner else "table"
        words = {"string": "string", "integer": "integer", "number": "number", "boolean": "`true` or `false`"}
        return words.get(str(kind), "any value") + _bounds(node)

    def _array(self, node: Node, section: str) -> str:
        if "prefixItems" in node:
            return f"list of {len(node['prefixItems'])}: " + ", ".join(self._type(item, section) for item in node["prefixItems"])
        inner = self._type(node.get("items", {}), section)
        inner = f"({inner})" if " or " in inner else inner
        least = node.get("minItems", 0)
        return f"list of {inner}" + (f", {least} at least" if least else "")

    def _names_only(self, item: Node, choices: list[Node]) -> bool:
        return item.get("type") == "string" and "enum" in item and any("$ref" in other for other in choices)

    def _link(self, name: str, section: str) -> str:
        place = self.places[name]
        shown = place.heading.partition(": ")[2] or place.heading
        page = "" if place.section == section else f"{place.section}.md"
        if place.heading in (place.section, f"{place.section}.NAME"):
            return f"[{shown}]({page or place.section + '.md'})"
        return f"[{shown}]({page}#{place.anchor})"

    def _tables(self, node: Node, path: str) -> list[tuple[str, str]]:
        """The tables that NODE at PATH may hold, each with its heading."""
        if "$ref" in node:
            name = _reference(node)
            kind = self.whole["$defs"][name].get("properties", {}).get("kind", {}).get("const")
            return [(name, f"{path}: {kind}" if kind else path)]
        if "patternProperties" in node:
            (inner,) = node["patternProperties"].values()
            return self._tables(inner, f"{path}.NAME")
        choices = node.get("anyOf") or node.get("oneOf") or []
        found = [item for choice in choices for item in self._tables(choice, path)]
        if len({heading for _, heading in found}) < len(found):
            # Members without a kind are distinguished by the key that they must have.
            names = [name for name, _ in found]
            found = [(name, f"{path}: {self._telling(name, names)}") for name in names]
        for inner in (node.get("items"), node.get("additionalProperties")):
            if isinstance(inner, dict):
                found += self._tables(inner, path)
        return found

    def _telling(self, name: str, names: list[str]) -> str:
        """The key that table NAME must have and the others of NAMES do not know."""
        definitions = self.raw["$defs"]
        others = {key for other in names if other != name for key in definitions[other]["properties"]}
        return str(next(key for key in definitions[name]["required"] if key not in others))


def _reference(node: Node) -> str:
    return str(node["$ref"]).rsplit("/", 1)[1]


def _bounds(node: Node) -> str:
    shown = [
        f"{sign} {node[key]:,}" if abs(node[key]) < 2**53 else f"{sign} 2^{node[key].bit_length() - 1}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in node
    ]
    return f", {' and '.join(shown)}" if shown else ""


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _text(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
