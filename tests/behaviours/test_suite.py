"""The golden suite on this machine: every kind and every member of a family leaves the bytes that are committed, and edits are noticed."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.identity.behaviours import Behaviours
from tests.behaviours.listing import Listing, closures, judge, packages
from tests.behaviours.mutations import MUTATIONS, Mutation
from tests.behaviours.suite import ROOT, Suite, suite

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """The suite, built with the code as it is: not to be changed."""
    with suite(tmp_path_factory.mktemp("golden")) as found:
        found.resolve()
        assert found.run(found.steps()) == {}
        yield found


def test_every_unit_of_code_is_listed():
    known = Behaviours.of(ROOT)
    unlisted = [unit for unit, closure in closures(ROOT).items() if not isinstance(known.code(unit, closure), int)]
    assert not unlisted, f"the code of {', '.join(unlisted)} was edited: run `make behaviours`, which says what will rerun"


def test_every_step_leaves_the_committed_bytes(built: Suite):
    known = Listing.of(ROOT)
    outcomes = {name: built.outcome(name) for _, name in built.steps()}
    golden = {name: {"read": outcome.read, "left": outcome.left, "units": list(outcome.units)} for name, outcome in outcomes.items()}
    other = [name for name in {**golden, **known.golden} if golden.get(name) != known.golden.get(name)]
    assert not other, f"{len(other)} of {len(golden)} steps left other bytes: {', '.join(sorted(other)[:9])}"
    verdict = judge(known, closures(ROOT), outcomes, packages())
    assert not verdict.uncovered, f"no step of the suite runs {', '.join(verdict.uncovered)}"


def noticed(built: Suite, mutation: Mutation, folder: Path) -> bool:
    """Whether a step leaves other bytes, or fails, with MUTATION in the code."""
    code, root = folder / "code", folder / "workspace"
    for package in ("engine", "stages"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = code / mutation.file
    text = file.read_text("utf-8")
    assert text.count(mutation.old) == 1, f"{mutation}: the text stands in the module {text.count(mutation.old)} times"
    file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    shutil.copytree(built.root, root)
    place = replace(built, root=root)
    kinds = {name: kind for kind, name in built.steps()}
    failed = place.run([(kinds[name], name) for name in mutation.steps], code, resolve=True)
    golden = Listing.of(ROOT).golden
    return bool(failed) or any(place.outcome(name).left != golden[name]["left"] for name in mutation.steps)


@pytest.mark.long
def test_the_suite_notices_edits_that_change_what_users_get(built: Suite, tmp_path: Path):
    assert len(MUTATIONS) >= 30
    holes = []
    for number, mutation in enumerate(MUTATIONS):
        if not noticed(built, mutation, tmp_path / str(number)):
            holes.append(str(mutation))
        shutil.rmtree(tmp_path / str(number))
    assert not holes, "nothing in the suite notices:\n" + "\n".join(holes)


def test_an_edit_without_effect_keeps_every_identity(built: Suite, tmp_path: Path):
    """A comment, a docstring and another layout of the text are no edit at all."""
    code = tmp_path / "code"
    for package in ("engine", "stages"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = code / "stages/train/loop/loss.py"
    file.write_text(f'"""Another docstring."""\n# a comment\n{file.read_text("utf-8").partition(chr(10))[2]}', "utf-8")
    root = tmp_path / "workspace"
    shutil.copytree(built.root, root)
    identities = root / "artifacts/identity"
    shutil.rmtree(identities)
    replace(built, root=root).resolve(code)
    text = (identities / "train-base.json").read_text()
    assert text == (built.root / "artifacts/identity/train-base.json").read_text()
    assert all(isinstance(revision, int) for revision in json.loads(text)["code"].values())
