"""What a workspace says of its store, DVC's default remote: `[tool.adapterbuild.store]` in its pyproject.toml."""

import re
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import Location, UserError, did_you_mean
from engine.core.workspace import SETTINGS, settings_of
from engine.dvc import git
from engine.dvc.signatures import NAMESPACES, RUN, Signer, Untrusted, fingerprint, principal, signers

_KEYS = ("allowed_signers", "key", "push")
_PUSH = ("always", "never")


@dataclass(frozen=True)
class Sharing:
    """How the workspace ROOT shares what is built there."""

    root: Path
    push: str = "never"
    """`always`: a build sends what it has run."""
    key: str = ""
    """The file of the SSH key that signs runs; empty: git's."""
    allowed_signers: Path | None = None
    """Whose runs count; None: those of everybody who can write to the store."""

    def key_in_use(self) -> Signer | None:
        """The key of the settings, or git's; None if there is none."""
        key = self.key or git.signing_key(self.root)
        if not key:
            return None
        # Nodes have homes of their own.
        return Signer(key if key.startswith("~") else str(self.root / key))

    def signer(self) -> Signer | None:
        """Who signs what is sent from here; None if nothing is signed.

        Raises UserError if the store takes signed runs only, and this workspace has no key, or one that is not allowed.
        """
        if not self.key and self.allowed_signers is None:
            return None
        if (signer := self.key_in_use()) is None:
            hint = (
                f"set key in [tool.adapterbuild.store] of {SETTINGS}, or git's: git config gpg.format ssh; git config user.signingkey FILE"
            )
            raise UserError("the store takes signed runs only, and no key is set", hint=hint)
        if self.allowed_signers is not None:
            try:
                principal("", signer.sign("", RUN), RUN, self.allowed_signers)
            except Untrusted:
                what = f"{self.allowed_signers.name} does not allow {signer.key} ({fingerprint(signer.public)})"
                raise UserError(what, hint="run: engine keys --allow NAME") from None
        return signer


def sharing(root: Path, unwritten: bool = False) -> Sharing:
    """The settings of the workspace ROOT; raises UserError for invalid ones, and unless UNWRITTEN, without the file of allowed signers."""
    given = settings_of(root).get("store", {})
    for name, value in given.items():
        where = f"[tool.adapterbuild.store] {name}"
        if name not in _KEYS:
            raise UserError(f"{where} is not a setting", Location(SETTINGS), did_you_mean(name, list(_KEYS)))
        if not isinstance(value, str) or not value:
            raise UserError(f"{where} must be a text, got {value!r}", Location(SETTINGS))
    if (push := given.get("push", Sharing.push)) not in _PUSH:
        raise UserError(f'[tool.adapterbuild.store] push must be "always" or "never", got {push!r}', Location(SETTINGS))
    allowed = root / Path(given["allowed_signers"]).expanduser() if "allowed_signers" in given else None
    if allowed is not None and not allowed.is_file() and not unwritten:
        what = f"[tool.adapterbuild.store] allowed_signers: there is no file {allowed}"
        raise UserError(what, Location(SETTINGS), "write it: engine keys --allow NAME")
    return Sharing(root, push, given.get("key", ""), allowed)


def allow(root: Path, name: str, public: str | None) -> Path:
    """Add the key PUBLIC, by default the one in use, to the allowed signers of the workspace ROOT; returns their file.

    Raises UserError without such a setting or key.
    """
    found = sharing(root, unwritten=True)
    if found.allowed_signers is None:
        hint = f'add to {SETTINGS}: [tool.adapterbuild.store] allowed_signers = "allowed_signers"'
        raise UserError("this workspace has no file of allowed signers", hint=hint)
    if not re.fullmatch(r"[\w.@+-]+", name):
        raise UserError(f"a signer has a name such as alice@example.org, got {name!r}")
    if public is None:
        if (signer := found.key_in_use()) is None:
            raise UserError("no key is set", hint="name one: --public FILE.pub")
        public = signer.public
    path = found.allowed_signers
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    if (name, public) not in (list(signers(path)) if lines else []):
        path.write_text("".join(f"{line}\n" for line in [*lines, f'{name} namespaces="{NAMESPACES}" {public}']), "utf-8")
    return path
