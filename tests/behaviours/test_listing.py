"""What counts as alike: by what the golden suite leaves, never by somebody's word."""

from dataclasses import replace

import pytest

from engine.core.graph import Step
from engine.identity.behaviours import Behaviours, Unit, Versions, closure_digest, module_of, unit_of
from engine.plan.decide import identity_changes
from tests.behaviours.listing import Listing, closures, judge, with_change
from tests.behaviours.mutations import MUTATIONS
from tests.behaviours.suite import ROOT, Outcome

CODE = {"train": {"stages.train.body": "1", "stages.rows.text": "1"}, "train.methods.lora": {"stages.train.methods.lora": "1"}}
OUTCOMES = {
    "train-a": Outcome("reads a", "leaves a", ("train", "train.methods.lora")),
    "train-b": Outcome("reads b", "leaves b", ("train",)),
}
VERSIONS = {"torch": "2.0", "safetensors": "0.8"}


def edited(unit: str, digest: str = "2") -> dict[str, dict[str, str]]:
    return CODE | {unit: dict.fromkeys(CODE[unit], digest)}


@pytest.fixture
def listing() -> Listing:
    return judge(Listing(), CODE, OUTCOMES, VERSIONS).listing


@pytest.fixture
def first(listing: Listing) -> Behaviours:
    return listing.behaviours


def test_what_is_listed_first_has_revision_one_and_another_run_changes_nothing(first: Behaviours, listing: Listing):
    assert {unit: known.revision for unit, known in first.units.items()} == {"train": 1, "train.methods.lora": 1}
    again = judge(listing, CODE, OUTCOMES, VERSIONS)
    assert again.listing.files() == listing.files() and not (again.alike or again.changed or again.unexplained)


def test_code_that_leaves_the_same_bytes_keeps_its_revision(listing: Listing):
    verdict = judge(listing, edited("train"), OUTCOMES, VERSIONS)
    assert verdict.alike == ("train",) and verdict.behaviours.code("train", edited("train")["train"]) == 1
    assert verdict.behaviours.code("train", CODE["train"]) == 1, "the code before is still alike"


def test_code_that_leaves_other_bytes_gets_a_new_revision_with_its_line(listing: Listing):
    moved = OUTCOMES | {"train-b": replace(OUTCOMES["train-b"], left="other")}
    verdict = judge(listing, edited("train"), moved, VERSIONS, "The loss is a mean.")
    assert verdict.changed == {"train": ["train-b"]} and not verdict.alike
    known = verdict.behaviours
    assert known.code("train", edited("train")["train"]) == 2 and known.code("train", CODE["train"]) == 1
    assert known.units["train"].changes == {"2": "The loss is a mean."}
    # Going back to the old code is going back to the old revision, with the bytes of then.
    assert known.code("train.methods.lora", CODE["train.methods.lora"]) == 1


def test_only_the_units_whose_code_changed_are_blamed(listing: Listing):
    moved = {name: replace(outcome, left="other") for name, outcome in OUTCOMES.items()}
    assert set(judge(listing, edited("train.methods.lora"), moved, VERSIONS, "x").changed) == {"train.methods.lora"}


@pytest.mark.parametrize("lost", ["read", "left"])
def test_a_step_that_cannot_be_compared_is_never_alike(listing: Listing, lost: str):
    """What it reads has changed too, or it is no longer built: nobody knows whether the code still does the same."""
    moved = OUTCOMES | {"train-b": replace(OUTCOMES["train-b"], **{lost: "other"})}
    assert not judge(listing, edited("train"), moved, VERSIONS, "x").alike
    gone = {"train-a": OUTCOMES["train-a"]}
    assert not judge(listing, edited("train"), gone, VERSIONS, "x").alike


def test_of_a_step_that_cannot_be_compared_the_unit_changes_that_no_other_step_shows_to_be_alike(listing: Listing):
    """`train-a` is the only step with lora; `train` is shown to be alike by `train-b`."""
    both = {unit: dict.fromkeys(closure, "2") for unit, closure in CODE.items()}
    moved = OUTCOMES | {"train-a": replace(OUTCOMES["train-a"], read="other", left="other")}
    verdict = judge(listing, both, moved, VERSIONS, "x")
    assert verdict.changed == {"train.methods.lora": ["train-a"]} and verdict.alike == ("train",)


def test_a_unit_that_no_step_runs_is_never_listed(listing: Listing):
    code = CODE | {"train.methods.new": {"stages.train.methods.new": "1"}}
    verdict = judge(listing, code, OUTCOMES, VERSIONS)
    assert verdict.uncovered == ("train.methods.new",) and isinstance(verdict.behaviours.code("train.methods.new", {"m": "1"}), dict)


def test_other_bytes_of_listed_code_are_unexplained(listing: Listing):
    moved = OUTCOMES | {"train-a": replace(OUTCOMES["train-a"], left="other")}
    assert judge(listing, CODE, moved, VERSIONS).unexplained == ("train-a",)


def test_versions_that_leave_the_same_bytes_are_those_of_before(listing: Listing):
    newer = VERSIONS | {"safetensors": "0.9"}
    verdict = judge(listing, CODE, OUTCOMES, newer)
    known = verdict.behaviours
    assert known.environment(newer, {"train": 1}) == VERSIONS
    assert known.environment({"safetensors": "0.9"}, {"train": 1}) == {"safetensors": "0.8"}
    assert known.environment(VERSIONS | {"torch": "3.0"}, {"train": 1}) == VERSIONS | {"torch": "3.0"}, "not listed: as it is"
    newest = judge(verdict.listing, CODE, OUTCOMES, VERSIONS | {"safetensors": "1.0"}).behaviours
    assert newest.environment({"safetensors": "1.0"}, {"train": 1}) == {"safetensors": "0.8"}, "alike what was alike before"


def test_versions_that_move_a_units_bytes_are_alike_for_the_others_only(listing: Listing):
    newer = VERSIONS | {"torch": "2.1"}
    moved = OUTCOMES | {"train-a": replace(OUTCOMES["train-a"], left="other")}
    known = judge(listing, CODE, moved, newer).behaviours
    assert known.environment(newer, {"train": 1}) == newer and known.environment(newer, {"train.methods.lora": 1}) == newer
    both = OUTCOMES | {"mix-a": Outcome("reads", "leaves", ("mix",))}
    code = CODE | {"mix": {"stages.mix.body": "1"}}
    known = judge(judge(Listing(), code, both, VERSIONS).listing, code, both | moved, newer).behaviours
    assert known.environment(newer, {"mix": 1}) == VERSIONS and known.environment(newer, {"mix": 1, "train": 1}) == newer


def identity(code: dict, format: int = 2, **more) -> dict:
    return {"format": format, "kind": "train", "recipe": {}, "inputs": {}, "code": code, "environment": VERSIONS} | more


def reasons(before: dict, now: dict, behaviours: Behaviours) -> list[str]:
    step = Step("train-a", None, None, {}, "", None, lambda path: None)  # type: ignore[arg-type]
    return [str(reason) for reason in identity_changes(step, before, now, behaviours)]


def test_a_plan_names_revisions_with_their_line_and_edits_by_module(listing: Listing):
    moved = OUTCOMES | {"train-b": replace(OUTCOMES["train-b"], left="other")}
    known = judge(listing, edited("train"), moved, VERSIONS, "The loss is a mean.").behaviours
    assert reasons(identity({"train": 1}), identity({"train": 2}), known) == ["code of train  revision 1 → 2  (The loss is a mean.)"]
    own = {"stages.train.body": "3", "stages.rows.text": "2"}
    assert reasons(identity({"train": 2}), identity({"train": own}), known) == ["code of stages.train.body changed"]
    assert reasons(identity({"train": own}), identity({"train": 2}), known) == ["code of stages.train.body changed"]
    assert reasons(identity({"train": 1}), identity({"train": edited("train")["train"]}), known)


def test_an_identity_from_before_its_code_or_versions_were_listed_says_the_same(first: Behaviours, listing: Listing):
    assert reasons(identity({"train": CODE["train"]}), identity({"train": 1}), first) == []
    newer = VERSIONS | {"safetensors": "0.9"}
    known = judge(listing, CODE, OUTCOMES, newer).behaviours
    assert reasons(identity({"train": 1}, environment=newer), identity({"train": 1}), known) == []


def test_identities_of_format_1_are_taken_over_where_they_are_of_the_last_code_that_wrote_them(first: Behaviours):
    union = CODE["train"] | CODE["train.methods.lora"]
    known = replace(first, format_1=union)
    now = identity({"train": 1, "train.methods.lora": 1})
    assert reasons(identity(union, format=1), now, known) == []
    assert reasons(identity(union | {"stages.train.body": "older"}, format=1), now, known)
    later = replace(known, units=known.units | {"train": Unit(2, {closure_digest(CODE["train"]): 2})})
    assert reasons(identity(union, format=1), identity({"train": 2, "train.methods.lora": 1}), later) == ["code of train  revision 1 → 2"]


def test_every_unit_of_the_code_has_a_name_that_leads_back_to_its_module():
    found = closures(ROOT)
    assert {"train", "generate", "train.methods.lora", "chat.formats.chat"} <= set(found)
    for unit in found:
        assert unit_of(module_of(unit)) == unit and module_of(unit) in found[unit]


def test_the_files_read_back_as_they_were_written_and_are_of_one_run(listing: Listing, tmp_path):
    for name, text in listing.files().items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert Listing.of(tmp_path).files() == listing.files()
    assert Versions(VERSIONS) in Behaviours.of(tmp_path).versions
    golden = tmp_path / "tests/behaviours/golden.json"
    golden.write_text(golden.read_text().replace("leaves a", "leaves b"))
    with pytest.raises(ValueError, match="of two runs"):
        Listing.of(tmp_path)


def test_a_revision_is_raised_on_demand_where_only_another_machine_would_show_the_change(listing: Listing):
    verdict = judge(listing, edited("train"), OUTCOMES, VERSIONS, "Attention on GPUs.", raised=["train"])
    assert verdict.changed == {"train": []} and not verdict.alike
    known = verdict.behaviours
    assert known.code("train", edited("train")["train"]) == 2 and known.units["train"].changes == {"2": "Attention on GPUs."}


def test_versions_of_code_that_is_not_listed_are_never_taken_for_others(listing: Listing):
    newer = VERSIONS | {"torch": "2.1"}
    known = judge(listing, CODE, OUTCOMES, newer).behaviours
    assert known.environment(newer, {"train": 1}) == VERSIONS
    assert known.environment(newer, {"train": CODE["train"]}) == newer, "nobody has compared this code under both"


def test_a_new_revision_forgets_what_versions_left_the_same_bytes_for_the_old_one(listing: Listing):
    newer = VERSIONS | {"torch": "2.1"}
    known = judge(listing, CODE, OUTCOMES, newer).listing
    moved = OUTCOMES | {"train-b": replace(OUTCOMES["train-b"], left="other")}
    later = judge(known, edited("train"), moved, newer, "x").behaviours
    assert later.environment(newer, {"train": 2}) == newer and later.environment(newer, {"train.methods.lora": 1}) == VERSIONS


def test_a_package_that_came_later_is_no_part_of_older_combinations(listing: Listing):
    known = judge(listing, CODE, OUTCOMES, VERSIONS | {"new": "1"}).behaviours
    assert known.environment({"torch": "2.0", "new": "1"}, {"train": 1}) == {"torch": "2.0", "new": "1"}


def test_a_unit_that_nothing_shows_to_be_alike_gets_a_new_revision(listing: Listing):
    alone = {"train-b": OUTCOMES["train-b"]}
    lost = judge(listing, CODE, alone, VERSIONS).listing
    again = judge(lost, edited("train.methods.lora"), OUTCOMES, VERSIONS, "x")
    assert set(again.changed) == {"train.methods.lora"}


def test_an_identity_of_a_later_release_is_not_read_as_one_of_today(first: Behaviours):
    assert reasons(identity({"train": 1}, format=3), identity({"train": 1}), first)


@pytest.mark.parametrize("unreleased", ["", "### Added\n\n- A verb.\n\n", "### Added\n\n- A verb.\n\n### Changed\n\n- A word.\n\n"])
def test_the_line_of_a_new_revision_stands_among_the_changes_of_what_is_unreleased(unreleased: str):
    released = "## 0.1.0\n\n### Changed\n\n- Older.\n"
    text = with_change(f"# Changelog\n\n## Unreleased\n\n{unreleased}{released}", "Bytes move.")
    before, after = text.split("## 0.1.0")
    assert f"## 0.1.0{after}" == released
    assert before.startswith("# Changelog\n\n## Unreleased\n\n### ") and before.count("### Changed\n\n- Bytes move.\n") == 1
    assert all(line in before for line in unreleased.splitlines()) and "\n\n\n" not in text


def test_the_author_can_name_the_unit_where_an_edit_of_shared_code_changes_behaviour(listing: Listing):
    """Both units import the edited module; `train-b` shows that without lora nothing has changed."""
    both = {unit: dict.fromkeys(closure, "2") for unit, closure in CODE.items()}
    moved = OUTCOMES | {"train-a": replace(OUTCOMES["train-a"], left="other")}
    assert set(judge(listing, both, moved, VERSIONS, "x").changed) == {"train", "train.methods.lora"}
    verdict = judge(listing, both, moved, VERSIONS, "x", cause=["train.methods.lora"])
    assert verdict.changed == {"train.methods.lora": ["train-a"]} and verdict.alike == ("train",)


def test_what_the_author_says_does_not_excuse_a_step_that_contradicts_it(listing: Listing):
    both = {unit: dict.fromkeys(closure, "2") for unit, closure in CODE.items()}
    moved = {name: replace(outcome, left="other") for name, outcome in OUTCOMES.items()}
    assert set(judge(listing, both, moved, VERSIONS, "x", cause=["train.methods.lora"]).changed) == {"train", "train.methods.lora"}


def test_every_mutation_edits_a_text_that_stands_once_in_its_module():
    """Code that moves takes its mutations along: the long test would only tell an hour later."""
    counts = {str(mutation): (ROOT / mutation.file).read_text("utf-8").count(mutation.old) for mutation in MUTATIONS}
    assert counts == dict.fromkeys(counts, 1)
