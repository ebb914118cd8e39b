"""Makes the folder of an adapter one that loads by itself: the base that it names, and a model card.

The artifact names no base, since a path would make equal trainings differ. What stands in its folder is written for these readers
(peft 0.21, transformers 5):

 - `AutoPeftModel` loads what `base_model_name_or_path` names at `revision`; a relative path counts from the working directory;
 - `pipeline` and `from_pretrained` do so too, without the revision, unless `config.json` lies beside the adapter: then the folder is
   taken for the base as well;
 - `transformers serve` knows the second way alone.

So a base that is placed lies in `base/`, which is named, and links beside the adapter lead to its configuration and weights. Links and
name are relative: folder and base move together.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from engine.artifacts.bases import Base, base_of, files_of, read_by
from engine.artifacts.cards import CARD, Way, card
from engine.core.errors import UserError
from engine.identity.provenance import Provenance
from engine.dvc.writing import copy
from engine.dvc.store import Disk
from stages.process.starting import ours

Choice = Literal["auto", "place", "name"]
"""`place`: a copy beside the adapter; `name`: only its name; `auto`: the name of a model of the hub, a copy of any other."""

CONFIG, ENDS, FOLDER = "adapter_config.json", "generation_config.json", "base"
_PLACED = (".jinja", ".json", ".model", ".safetensors", ".txt")
"""What is taken of a model's folder: neither code nor pickles."""


@dataclass(frozen=True)
class Loadable:
    """What a folder says of its base now."""

    base: str
    """In words, for people."""
    lacking: str | None = None
    """Why it names no base, where it does not."""


def complete(root: Path, store: Disk, told: Provenance, folder: Path, target: Path, choice: Choice = "auto") -> Loadable:
    """Add to FOLDER, which holds the artifact of the training TOLD and is to be TARGET, the base's name or a copy of it, and a card.

    Raises UserError where CHOICE asks for what cannot be had.
    """
    if not (folder / CONFIG).is_file():
        (folder / CARD).write_text(card(told, None, Way.WHOLE, {}), "utf-8")
        return Loadable("none: it is a whole model")
    base = base_of(root, store, told)
    way, said = _provide(root, store, told, base, folder, target, choice)
    config = json.loads((folder / CONFIG).read_text("utf-8")) | said
    if said:
        # As the artifact's own, so that nothing but these two values differs.
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    (folder / CARD).write_text(card(told, base, way, config), "utf-8")
    if way is Way.UNNAMED:
        return Loadable(base.name, f"{base.read.path} is neither in DVC's cache or remote nor in the workspace as it was trained on")
    at = f" at {base.hub[1]}" if base.hub else ""
    return Loadable(f"{base.name}{at}" + (f", in {target / FOLDER}" if way is Way.PLACED else ""))


def _provide(
    root: Path, store: Disk, told: Provenance, base: Base, folder: Path, target: Path, choice: Choice
) -> tuple[Way, dict[str, Any]]:
    """How the base is given, and what `adapter_config.json` says of it."""
    if base.hub and choice != "place":
        return Way.HUB, dict(zip(("base_model_name_or_path", "revision"), base.hub, strict=True))
    if choice == "name":
        now = store.entry(base.read.path)
        if now is None or now.md5 != base.read.md5:
            what = f"{base.read.path} is not what {told.step} was trained on any more, and can only be named where it is"
            raise UserError(what, hint="place a copy from the cache: --base-model place")
        return Way.NEAR, {"base_model_name_or_path": os.path.relpath((root / base.read.path).resolve(), target.resolve())}
    files = files_of(root, store, base.read)
    if files is None:
        if choice == "place":
            what = f"the base {base.read.path} is neither in DVC's cache or remote nor in the workspace as it was trained on"
            raise UserError(what, hint="name a remote that has it (dvc remote default NAME), or build it again")
        return Way.UNNAMED, {}
    _place(files, folder / FOLDER)
    if (folder / ENDS).is_file():
        # peft takes the base's: answers would end where the base ends, not where the training taught.
        copy(folder / ENDS, folder / FOLDER / ENDS)
    if read_by(told, "vocabulary"):
        _widen(root, store, told, folder)
    for path in sorted((folder / FOLDER).iterdir()):
        if path.name == "config.json" or path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
            (folder / path.name).symlink_to(f"{FOLDER}/{path.name}")
    return Way.PLACED, {"base_model_name_or_path": FOLDER}


def _place(files: Mapping[str, Path], folder: Path) -> None:
    folder.mkdir()
    for name, source in files.items():
        if "/" not in name and name.endswith(_PLACED):
            copy(source, folder / name)


def _widen(root: Path, store: Disk, told: Provenance, folder: Path) -> None:
    """Give the base embeddings for the tokens that the spec adds: transformers puts an adapter on a base as it is."""
    read = read_by(told, "vocabulary")
    assert read
    files = files_of(root, store, read)
    if files is None:
        raise UserError(f"{read.path}, which names the added tokens, is not in DVC's cache or remote any more", hint="build it again")
    with TemporaryDirectory(dir=folder.parent, prefix=".widen-") as temporary:
        wide, tokens = Path(temporary) / "wide", Path(temporary) / "tokens"
        _place(files, tokens)
        command = ours("stages.widening", *(str(path.absolute()) for path in (folder / FOLDER, tokens, wide)))
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode:
            raise UserError(f"the base cannot be given the added tokens: {done.stderr.strip()}", hint="leave it out: --base-model name")
        for path in (folder / FOLDER).glob("*.safetensors*"):
            path.unlink()
        for path in sorted(wide.iterdir()):
            path.replace(folder / FOLDER / path.name)
