"""Results that were recorded in format 1, one file for statement and run, become a statement and a run record of today."""

import json
from dataclasses import replace
from pathlib import Path

from engine.core.digests import digest
from engine.dvc import dvcfile
from engine.dvc.run_records import RunRecord, is_old
from engine.identity.provenance import Provenance, parse
from engine.plan.takeover import converted

BESIDE = {"metrics/split-a.json": b'{"train": 3}\n'}
READS = {"path": "artifacts/generate-a", "md5": "d" * 32 + ".dir"}


def old_text(now: Provenance) -> bytes:
    """What the code of format 1 wrote about the same result."""
    content = json.loads(now.text())
    definition = content["predicate"]["buildDefinition"]
    definition["externalParameters"]["spec"] = "specs/a.toml:3:1"
    definition["internalParameters"]["resources"] = {"threads": 2}
    definition["resolvedDependencies"].append({"name": "git", "digest": {"gitCommit": "e" * 40}})
    metadata = {"startedOn": "2026-01-01", "finishedOn": "2026-01-02", "adapterbuild_machine": {"cores": 2}}
    metadata |= {"adapterbuild_measured": {"seconds": 1.5}, "adapterbuild_accepted": [{"to": "sha256:2"}]}
    content["predicate"]["runDetails"] = {"builder": {"id": "adapterbuild"}, "metadata": metadata}
    return json.dumps(content).encode()


def test_a_file_of_format_1_becomes_the_statement_of_today_to_the_byte_and_loses_nothing_of_its_run(tmp_path: Path):
    identity = json.dumps({"recipe": {"seed": 1}, "inputs": {"rows": READS["path"]}, "code": {"body": 4}, "environment": {"x": "1"}})
    files = {"train.jsonl": "b" * 64}
    before = Provenance(
        "split-a", "split", "sha256:" + "a" * 64, files, "sha256:1", {"seed": 1}, {"rows": READS}, {"body": "f00"}, {"x": "1"}
    )
    now = Provenance(
        *("split-a", "split", before.digest, files, digest(identity), {"seed": 1}, {"rows": READS}, {"body": 4}, {"x": "1"}), beside=BESIDE
    )
    old = old_text(before)
    found = converted(old, None, BESIDE, identity)
    assert is_old(old) and found and found[0] == now.text()
    ran = found[1]
    assert (ran.statement, ran.git_commit, ran.spec) == (dvcfile.text_md5(now.text()), "e" * 40, "specs/a.toml:3:1")
    assert (ran.measured, ran.machine, ran.resources, ran.finished) == ({"seconds": 1.5}, {"cores": 2}, {"threads": 2}, "2026-01-02")
    assert ran.accepted == ({"to": "sha256:2"},) and parse(old) == before


def test_a_statement_of_today_is_that_of_another_text_of_its_identity_and_its_run_stays(tmp_path: Path):
    old, new = (
        json.dumps({"recipe": recipe, "inputs": {"rows": READS["path"]}, "code": {"split": code}, "environment": {"x": "1"}})
        for recipe, code in (({"seed": 1}, {"stages.split.body": "f00"}), ({"seed": 1, "later": 0}, 3))
    )

    def told(identity: str) -> Provenance:
        said = json.loads(identity)
        return Provenance(
            *("split-a", "split", "sha256:" + "a" * 64, {"train.jsonl": "b" * 64}, digest(identity), said["recipe"]),
            *({"rows": READS}, said["code"], said["environment"]),
            beside=BESIDE,
        )

    ran = RunRecord("split-a", dvcfile.text_md5(told(old).text()), finished="2026-01-02")
    found = converted(told(old).text().encode(), ran, BESIDE, new)
    assert found and found[0] == told(new).text()
    assert found[1] == replace(ran, statement=dvcfile.text_md5(found[0]))


def test_what_is_damaged_is_not_converted():
    assert converted(b'{"adapterbuild_measured"', None, BESIDE, "{}") is None
