"""The names of the keys of other tools, from the tables next to this module."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def _table(tool: str) -> Mapping[str, Any]:
    return tomllib.loads(resources.files("engine.importing").joinpath(f"{tool}.toml").read_text("utf-8"))


def listed(tool: str, *lists: str) -> frozenset[str]:
    """The names in LISTS of TOOL's table."""
    return frozenset(name for each in lists for name in _table(tool)[each])


@cache
def names(tool: str) -> frozenset[str]:
    """Every key that TOOL's own schema has at the top of a configuration, with those of its plugins."""
    lists = {"axolotl": ("keys", "plugin_keys"), "llamafactory": ("keys", "megatron_keys"), "trl": ("keys", "dpo_keys", "kto_keys")}[tool]
    return listed(tool, *lists) | (frozenset() if tool == "axolotl" else listed("transformers", "keys", "former_keys"))


def version(tool: str) -> str:
    """The version of TOOL that the names are of."""
    return str(_table(tool)["version"])
