"""Names that keep the steps of imported specs apart from others of the workspace: steps of one name must be one step."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.importing.reading import Draft
from engine.spec.positions import Key


def keep_apart(drafts: Sequence[Draft], files: Iterable[Path]) -> None:
    """Rename tasks of DRAFTS that another draft, or one of the TOML FILES, defines otherwise; and name their tokenizations if those differ.

    A file with the name of a draft's experiment counts as that draft, which may overwrite it.
    """
    own = {draft.value("experiment.name") for draft in drafts}
    there = [table for path in files if path.stem not in own and (table := _table(path))]
    tasks: list[tuple[str, Any]] = [item for table in there for item in table.get("tasks", {}).items()]
    tokenizations: list[Any] = [table["tokenization"] for table in there if "tokenization" in table]
    for draft in drafts:
        experiment = str(draft.value("experiment.name"))
        for name, task in _plain(draft).get("tasks", {}).items():
            if any(other == name and not _agree(task, found) for other, found in tasks):
                _rename(draft, name, f"{name}-{experiment}"[:60].rstrip("-"))
        made = _plain(draft)
        tokenization = made.get("tokenization", {})
        if any(not _agree(tokenization, found) for found in tokenizations) and {name for name, _ in tasks} & made.get("tasks", {}).keys():
            draft.set("tokenization.name", experiment, ["another spec tokenizes these rows in another way"])
        tasks += made.get("tasks", {}).items()
        tokenizations.append(tokenization)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return {}


def _plain(draft: Draft) -> dict[str, Any]:
    """The settings as TOML would read them: lists in place of tuples."""

    def listed(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [listed(item) for item in value]
        return {key: listed(item) for key, item in value.items()} if isinstance(value, dict) else value

    made: dict[str, Any] = listed(draft.plain())
    return made


def _agree(one: Any, other: Any) -> bool:
    """Whether two tables set nothing differently, revisions and the names of tokenizations aside; keys that one lacks may be defaults."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_agree(one[key], other[key]) for key in (one.keys() & other.keys()) - {"revision", "name"})
    return bool(one == other)


def _rename(draft: Draft, old: str, new: str) -> None:
    """Rename a task wherever DRAFT names it."""

    def renamed(path: Key) -> Key:
        return ("tasks", new, *path[2:]) if path[:2] == ("tasks", old) else path

    draft.settings = {renamed(path): setting for path, setting in draft.settings.items()}
    mixture = draft.settings[("mixture", "tasks")]
    draft.settings[("mixture", "tasks")] = replace(mixture, value=tuple(new if name == old else name for name in mixture.value))
    sampler = draft.settings.get(("mixture", "sampler"))
    if sampler and isinstance(sampler.value, dict):
        weights = {new if name == old else name: share for name, share in sampler.value.get("weights", {}).items()}
        draft.settings[("mixture", "sampler")] = replace(sampler, value={**sampler.value, "weights": weights})
    if old in draft.datasets:
        draft.datasets[new] = draft.datasets.pop(old)
    before, after = f"tasks.{old}.", f"tasks.{new}."
    for key, entry in draft.entries.items():
        draft.entries[key] = replace(entry, ours=tuple(ours.replace(before, after) for ours in entry.ours))
