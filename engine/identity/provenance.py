"""The provenance of a result, as an in-toto statement with an SLSA predicate; the only module that knows the format.

Sources: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and https://slsa.dev/spec/v1.0/provenance
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "adapterbuild/step/v1"
_SHA256 = "sha256:"


@dataclass(frozen=True)
class Provenance:
    """What a step produced and from what; contains no times, machine or duration, so that identical builds give identical bytes.

    `engine.dvc.run_records.RunRecord` describes the run itself.
    """

    step: str
    kind: str
    digest: str
    """Content address of the artifact, `sha256:<hex>`."""
    files: Mapping[str, str]
    """The sha256 (hex) of every file of the artifact, by path inside it."""
    identity: str
    """Digest of the identity file."""
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    """By role: `path`, and `md5` as DVC records it (with the suffix `.dir` for a folder)."""
    code: Mapping[str, Any] = field(default_factory=dict)
    """By unit: its revision, or the digests of its modules, as in the identity file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Content of metrics and plot, by path in the workspace: git tracks them and DVC does not push them, so the statement carries them."""

    def text(self) -> str:
        """The content of the file `<artifact>.provenance.json`."""
        return json.dumps(self.statement(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def statement(self) -> dict[str, Any]:
        """The in-toto statement, with the artifact and its files as subjects and everything else in the predicate."""
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
            for role, read in sorted(self.inputs.items())
        ]
        return {
            "buildType": BUILD_TYPE,
            "externalParameters": {"step": self.step, "kind": self.kind, "recipe": dict(self.recipe)},
            "internalParameters": {"identity": self.identity, "code": dict(self.code), "environment": dict(self.environment)},
            "resolvedDependencies": materials,
        }

    def _details(self) -> dict[str, Any]:
        byproducts = [
            {"name": path, "digest": {"sha256": hashlib.sha256(data).hexdigest()}, "content": base64.b64encode(data).decode()}
            for path, data in sorted(self.beside.items())
        ]
        return {"builder": {"id": "adapterbuild", "version": {"format": "2"}}, "byproducts": byproducts}


def parse(data: bytes | str) -> Provenance | None:
    """The provenance in the content of a `.provenance.json` file; None if it is damaged or not a provenance statement."""
    try:
        return from_statement(json.loads(data))
    except ValueError:
        return None


def from_statement(content: Any) -> Provenance | None:
    """The provenance in a parsed statement (format 1 or 2); None if it is not a statement of this project."""
    try:
        (first, *rest), predicate = content["subject"], content["predicate"]
        definition = predicate["buildDefinition"]
        external, internal = definition["externalParameters"], definition["internalParameters"]
        byproducts = predicate["runDetails"].get("byproducts", [])
        return Provenance(
            step=external["step"],
            kind=external["kind"],
            digest=_SHA256 + first["digest"]["sha256"],
            files={item["name"].removeprefix(f"{first['name']}/"): item["digest"]["sha256"] for item in rest},
            identity=internal["identity"],
            recipe=external["recipe"],
            # Format 1 listed the git commit among the materials.
            inputs={
                item["name"]: {"path": item["uri"], "md5": item["annotations"]["md5"]}
                for item in definition["resolvedDependencies"]
                if "gitCommit" not in item["digest"]
            },
            code=internal["code"],
            environment=internal["environment"],
            beside={item["name"]: base64.b64decode(item["content"], validate=True) for item in byproducts},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def beside_in(data: bytes) -> Mapping[str, bytes]:
    """The content of metrics and plot in a statement, by path; empty if it contains none."""
    found = parse(data) if b'"byproducts"' in data else None
    return found.beside if found else {}
