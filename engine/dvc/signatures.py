"""Signatures of what others read in a store, made with SSH keys as git signs commits: `ssh-keygen -Y sign` and `-Y verify`.

See ssh-keygen(1), also for the file of allowed signers; the format of a signature is OpenSSH's PROTOCOL.sshsig.
"""

import base64
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.core.errors import UserError

RUN = "adapterbuild-run"
"""The namespace of signatures of runs."""
CHECKPOINTS = "adapterbuild-checkpoints"
"""The namespace of signatures of lists of checkpoints."""
NAMESPACES = "adapterbuild-*"
"""A pattern of both, for a file of allowed signers."""

_KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk)-[\w@.-]+ [A-Za-z0-9+/]{40,}={0,2})")

_names: dict[tuple[str, Path, int], list[str]] = {}
"""The names of a public key in a file of allowed signers, as the file was at a time."""


class Untrusted(Exception):
    """Something is not signed by anybody who is trusted; the text says why."""


@dataclass(frozen=True)
class Signer:
    """Signs with the private key in the file KEY, or with the one that the SSH agent has for the public key in it."""

    key: str

    @cached_property
    def public(self) -> str:
        """The public key, as a line of a file of allowed signers has it; raises UserError if the key cannot sign."""
        return _signing_key(self.sign("", RUN))

    def sign(self, text: str, namespace: str) -> str:
        """The signature of TEXT; raises UserError if the key cannot be used."""
        path = Path(self.key).expanduser()
        done = _ssh_keygen("sign", "-f", str(path), "-n", namespace, given=text)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            hint = "make one: ssh-keygen -t ed25519; one with a passphrase must be in the SSH agent: ssh-add"
            raise UserError(f"the key {path} cannot sign: {said[-1] if said else 'ssh-keygen failed'}", hint=hint)
        return done.stdout.decode()

    def has_signed(self, text: str, signature: str, namespace: str) -> bool:
        """Whether SIGNATURE of TEXT was made with this key."""
        with tempfile.NamedTemporaryFile("w", suffix=".allowed") as file:
            file.write(f"self {self.public}\n")
            file.flush()
            try:
                return principal(text, signature, namespace, Path(file.name)) == "self"
            except Untrusted:
                return False


def principal(text: str, signature: str, namespace: str, allowed: Path) -> str:
    """Who has signed TEXT, by the name that the file ALLOWED gives the key; raises Untrusted if the signature is nobody's in it."""
    try:
        public = _signing_key(signature)
    except ValueError:
        raise Untrusted("its signature is none of SSH") from None
    with tempfile.NamedTemporaryFile("w", suffix=".sig") as file:
        file.write(signature)
        file.flush()
        # Few keys sign many runs. That a key has no name is not kept: ssh-keygen finds none for a damaged signature either.
        key = (public, allowed, allowed.stat().st_mtime_ns)
        names = _names.get(key) or _ssh_keygen("find-principals", "-s", file.name, "-f", str(allowed)).stdout.decode().splitlines()
        if names:
            _names[key] = names
        for name in names:
            if _ssh_keygen("verify", "-f", str(allowed), "-I", name, "-n", namespace, "-s", file.name, given=text).returncode == 0:
                return name
    if names:
        raise Untrusted(f"its signature by {names[0]} ({fingerprint(public)}) does not match")
    raise Untrusted(f"it is signed by {fingerprint(public)}, which {allowed.name} does not allow")


def signers(allowed: Path) -> Iterator[tuple[str, str]]:
    """The names in a file of allowed signers, each with its public key."""
    for line in allowed.read_text("utf-8").splitlines():
        if not line.lstrip().startswith("#") and (key := _KEY.search(line)):
            yield line.split()[0], key[1]


def public_key(text: str) -> str | None:
    """The public key in TEXT, the content of a `.pub` file; None if there is none."""
    key = _KEY.search(text)
    return key[1] if key else None


def fingerprint(public: str) -> str:
    """As OpenSSH shows a public key."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(public.split()[1])).digest()).decode().rstrip("=")


def signature_path(run: str, public: str) -> str:
    """Where the store has the signature of a RUN (its path in the run cache) by a public key, below `adapterbuild/`."""
    key = hashlib.sha256(base64.b64decode(public.split()[1])).hexdigest()[:32]
    return f"signatures/{run.removeprefix('runs/')}.{key}"


def _signing_key(signature: str) -> str:
    """The public key that SIGNATURE names; raises ValueError if it is none of SSH."""
    body = "".join(line for line in signature.splitlines() if not line.startswith("-----"))
    data = base64.b64decode(body, validate=True)
    if data[:6] != b"SSHSIG":
        raise ValueError(signature)
    size = int.from_bytes(data[10:14], "big")
    blob = data[14 : 14 + size]
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii")
    if not re.fullmatch(r"[\w@.-]+", kind):
        raise ValueError(signature)
    return f"{kind} {base64.b64encode(blob).decode()}"


def _ssh_keygen(operation: str, *options: str, given: str = "") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(["ssh-keygen", "-Y", operation, *options], input=given.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("ssh-keygen is not installed", hint="install OpenSSH's client (Debian's package openssh-client)") from None
