"""Completes the folder of an adapter so that it loads without other files: adds its base and a model card.

The artifact names no base, since a path would make equal trainings differ. The added files are written for these readers
(peft 0.21, transformers 5):

 - `AutoPeftModel` loads what `base_model_name_or_path` names at `revision`; a relative path counts from the working directory;
 - `pipeline` and `from_pretrained` do so too, without the revision, unless `config.json` is next to the adapter: then the folder is
   taken for the base as well;
 - `transformers serve` supports only the second way.

So a copied base is in `base/`, which is named, and links next to the adapter lead to its configuration and weights. Links and name are
relative, so that folder and base can be moved together.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from engine.artifacts.bases import Base, base_of, files_of, read_by
from engine.artifacts.cards import CARD, Way, card
from engine.core.errors import UserError
from engine.dvc.disk import Disk
from engine.dvc.remote import Remote
from engine.dvc.writing import copy
from engine.identity.provenance import Provenance
from stages.process.starting import ours

Choice = Literal["auto", "place", "name"]
"""`place`: a copy next to the adapter; `name`: only its name; `auto`: the name of a model of the hub, a copy of any other."""

CONFIG, ENDS, FOLDER = "adapter_config.json", "generation_config.json", "base"
_PLACED = (".jinja", ".json", ".model", ".safetensors", ".txt")
"""The suffixes of files that are copied from a model's folder: neither code nor pickles."""


@dataclass(frozen=True)
class Loadable:
    """How a completed folder provides its base."""

    base: str
    """The base, as text."""
    lacking: str | None = None
    """Why it provides no base; None if it does."""


def complete(
    root: Path,
    store: Disk,
    remote: Remote,
    told: Provenance,
    folder: Path,
    target: Path,
    choice: Choice = "auto",
    published: tuple[str, str] | None = None,
    prompts: Sequence[str] = (),
) -> Loadable:
    """Add to FOLDER the name or a copy of the base, and a model card; it holds the artifact of the training TOLD and will move to TARGET.

    PUBLISHED is the id and revision of the base on the hub, if it is there without having come from there. PROMPTS are the card's lines on
    how it is asked. Raises UserError if the base cannot be provided as in CHOICE.
    """
    if not (folder / CONFIG).is_file():
        (folder / CARD).write_text(card(told, None, Way.WHOLE, {}, prompts), "utf-8")
        return Loadable("none (whole model)")
    base = replace(base_of(root, store, remote, told), published=published)
    way, said = _provide(root, store, remote, told, base, folder, target, choice)
    config = json.loads((folder / CONFIG).read_text("utf-8")) | said
    if said:
        # As the artifact's own, so that nothing but these two values differs.
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    (folder / CARD).write_text(card(told, base, way, config, prompts), "utf-8")
    if way is Way.UNNAMED:
        return Loadable(base.name, f"{base.read.path} is neither in DVC's cache or remote nor unchanged in the workspace")
    at = f" at {base.hub[1]}" if base.hub else ""
    return Loadable(f"{base.name}{at}" + (f", in {target / FOLDER}" if way is Way.PLACED else ""))


def _provide(
    root: Path, store: Disk, remote: Remote, told: Provenance, base: Base, folder: Path, target: Path, choice: Choice
) -> tuple[Way, dict[str, Any]]:
    """How the base is provided, and its values for `adapter_config.json`."""
    if base.hub and choice != "place":
        return Way.HUB, dict(zip(("base_model_name_or_path", "revision"), base.hub, strict=True))
    if choice == "name":
        now = store.entry(base.read.path)
        if now is None or now.md5 != base.read.md5:
            what = f"{base.read.path} has changed since {told.step} was trained on it, so it cannot be named"
            raise UserError(what, hint="copy the original from the cache: --base-model place")
        return Way.NEAR, {"base_model_name_or_path": os.path.relpath((root / base.read.path).resolve(), target.resolve())}
    files = files_of(root, store, remote, base.read)
    if files is None:
        if choice == "place":
            what = f"the base {base.read.path} is neither in DVC's cache or remote nor unchanged in the workspace"
            raise UserError(what, hint="set a remote that has it (dvc remote default NAME), or rebuild it")
        return Way.UNNAMED, {}
    _place(files, folder / FOLDER)
    if (folder / ENDS).is_file():
        # peft takes that of the base: answers would end where those of the base end, not where the training taught.
        copy(folder / ENDS, folder / FOLDER / ENDS)
    if read_by(told, "vocabulary"):
        _widen(root, store, remote, told, folder)
    for path in sorted((folder / FOLDER).iterdir()):
        if path.name == "config.json" or path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
            (folder / path.name).symlink_to(f"{FOLDER}/{path.name}")
    return Way.PLACED, {"base_model_name_or_path": FOLDER}


def _place(files: Mapping[str, Path], folder: Path) -> None:
    folder.mkdir()
    for name, source in files.items():
        if "/" not in name and name.endswith(_PLACED):
            copy(source, folder / name)


def _widen(root: Path, store: Disk, remote: Remote, told: Provenance, folder: Path) -> None:
    """Add embeddings to the base for the tokens that the spec adds: transformers does not resize a base for an adapter."""
    read = read_by(told, "vocabulary")
    assert read
    files = files_of(root, store, remote, read)
    if files is None:
        raise UserError(f"{read.path}, which names the added tokens, is neither in DVC's cache nor in its remote", hint="rebuild it")
    with TemporaryDirectory(dir=folder.parent, prefix=".widen-") as temporary:
        wide, tokens = Path(temporary) / "wide", Path(temporary) / "tokens"
        _place(files, tokens)
        command = ours("stages.widening", *(str(path.absolute()) for path in (folder / FOLDER, tokens, wide)))
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode:
            raise UserError(f"the added tokens cannot be added to the base: {done.stderr.strip()}", hint="omit the base: --base-model name")
        for path in (folder / FOLDER).glob("*.safetensors*"):
            path.unlink()
        for path in sorted(wide.iterdir()):
            path.replace(folder / FOLDER / path.name)
