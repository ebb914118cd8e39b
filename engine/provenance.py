"""Where a result came from, as an in-toto statement with an SLSA provenance predicate: written by the runner, read here and nowhere else.

Sources: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and https://slsa.dev/spec/v1.0/provenance
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "adapterbuild/step/v1"
_SHA256 = "sha256:"
_EXTENSION = "adapterbuild_"
"""The predicate's own rule for fields that it does not define: a prefix of who adds them."""


@dataclass(frozen=True)
class Provenance:
    """What one run made, of what, with which code, where and when."""

    step: str
    kind: str
    digest: str
    """Content address of the artifact, `sha256:<hex>`."""
    files: Mapping[str, str]
    """Every file of the artifact, path inside it to its sha256 in hex."""
    identity: str
    """Digest of the identity file."""
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    """By role: `path`, and `md5` as DVC records it (`.dir` at its end for a folder)."""
    code: Mapping[str, Any] = field(default_factory=dict)
    """By unit: its revision, or the digests of its modules, as in the identity file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    spec: str | None = None
    git_commit: str | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Times and memory: they differ from run to run."""
    accepted: Sequence[Mapping[str, Any]] = ()
    """Changes of code or environment that a person took for harmless, each with its reasons."""

    def accept(self, note: Mapping[str, Any]) -> "Provenance":
        """The same result with one more change that was accepted."""
        return replace(self, accepted=(*self.accepted, note))

    def text(self) -> str:
        """The statement as the file that stands beside the artifact."""
        return json.dumps(self.statement(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def statement(self) -> dict[str, Any]:
        """The in-toto statement: the artifact and its files as subjects, everything else as the predicate."""
        subjects = [{"name": f"artifacts/{self.step}", "digest": {"sha256": self.digest.removeprefix(_SHA256)}}]
        subjects += [{"name": f"artifacts/{self.step}/{name}", "digest": {"sha256": digest}} for name, digest in sorted(self.files.items())]
        return {
            "_type": STATEMENT,
            "subject": subjects,
            "predicateType": PREDICATE,
            "predicate": {"buildDefinition": self._definition(), "runDetails": self._details()},
        }

    def _definition(self) -> dict[str, Any]:
        materials = [
            {"name": role, "uri": read["path"], "digest": {"md5": read["md5"].removesuffix(".dir")}, "annotations": {"md5": read["md5"]}}
            for role, read in self.inputs.items()
        ]
        if self.git_commit:
            materials.append({"name": "git", "digest": {"gitCommit": self.git_commit}})
        return {
            "buildType": BUILD_TYPE,
            "externalParameters": {"step": self.step, "kind": self.kind, "spec": self.spec, "recipe": dict(self.recipe)},
            "internalParameters": {
                "identity": self.identity,
                "code": dict(self.code),
                "environment": dict(self.environment),
                "resources": dict(self.resources),
            },
            "resolvedDependencies": materials,
        }

    def _details(self) -> dict[str, Any]:
        own = {"machine": dict(self.machine), "measured": dict(self.measured), "accepted": list(self.accepted)}
        return {
            "builder": {"id": "adapterbuild", "version": {"format": "1"}},
            "metadata": {
                "invocationId": self.identity,
                "startedOn": self.started,
                "finishedOn": self.finished,
                **{_EXTENSION + name: value for name, value in own.items()},
            },
        }


def parse(data: bytes | str) -> Provenance | None:
    """The provenance in a file beside an artifact; None for a file that is damaged or of another sort."""
    try:
        return from_statement(json.loads(data))
    except ValueError:
        return None


def from_statement(content: Any) -> Provenance | None:
    """The provenance that a statement tells; None where it is not one of ours."""
    try:
        (first, *rest), predicate = content["subject"], content["predicate"]
        definition, metadata = predicate["buildDefinition"], predicate["runDetails"]["metadata"]
        external, internal = definition["externalParameters"], definition["internalParameters"]
        materials = {item["name"]: item for item in definition["resolvedDependencies"]}
        commit = materials.pop("git", {}).get("digest", {}).get("gitCommit")
        return Provenance(
            step=external["step"],
            kind=external["kind"],
            digest=_SHA256 + first["digest"]["sha256"],
            files={item["name"].removeprefix(f"{first['name']}/"): item["digest"]["sha256"] for item in rest},
            identity=internal["identity"],
            recipe=external["recipe"],
            inputs={role: {"path": item["uri"], "md5": item["annotations"]["md5"]} for role, item in materials.items()},
            code=internal["code"],
            environment=internal["environment"],
            resources=internal["resources"],
            spec=external["spec"],
            git_commit=commit,
            machine=metadata[_EXTENSION + "machine"],
            started=metadata["startedOn"],
            finished=metadata["finishedOn"],
            measured=metadata[_EXTENSION + "measured"],
            accepted=tuple(metadata[_EXTENSION + "accepted"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
