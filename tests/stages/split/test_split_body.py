"""split: each row's place is its own matter; nothing is lost, nothing moves when neighbours come and go."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.process.job import Job
from stages.rows.jsonl import read_objects, write_rows
from stages.rows.splits import SPLITS, split_of
from stages.split import Parameters
from stages.split.body import run

ROOT = Path(__file__).parents[3]

groups = st.lists(st.text(st.characters(), max_size=4), max_size=30)


def row(number, group):
    return {"id": f"{number:016x}", "group": group, "prompt": f"p{number}", "completion": "c"}


def split(folder, rows, **shares):
    """Metrics and the rows of each split."""
    write_rows(folder / "rows.jsonl", rows)
    output = folder / "out"
    output.mkdir(exist_ok=True)
    metrics = run(Parameters(**shares), Job("split-x", {"rows": folder / "rows.jsonl"}, output, None, folder))
    return metrics, {name: [found for _, found in read_objects(output / f"{name}.jsonl")] for name in SPLITS}


def anchored(names):
    """Rows of these groups, and one of a group that is in train, so that train is never empty."""
    anchor = next(name for name in map(str, range(1000)) if split_of(name, Parameters()) == "train")
    return [row(number, name) for number, name in enumerate([anchor, *names])]


@given(groups)
def test_every_row_is_in_exactly_one_split_in_the_order_of_the_input(tmp_path_factory, names):
    rows = anchored(names)
    metrics, splits = split(tmp_path_factory.mktemp("split"), rows)
    assert metrics == {"rows_in": len(rows), **{name: len(found) for name, found in splits.items()}, "left_out": {}}
    assert sorted((found for part in splits.values() for found in part), key=lambda found: found["id"]) == rows
    assert all([found["id"] for found in part] == sorted(found["id"] for found in part) for part in splits.values())


@given(groups, groups, st.randoms(use_true_random=False))
def test_adding_removing_and_reordering_rows_moves_no_other(tmp_path_factory, names, more, random):
    folder = tmp_path_factory.mktemp("split")
    rows = anchored(names + more)
    _, before = split(folder, rows[: 1 + len(names)])
    others = rows[:1] + [found for found in rows[1:] if random.random() < 0.7]
    random.shuffle(others)
    _, after = split(folder, others)
    place = {found["id"]: name for name, part in before.items() for found in part}
    assert all(place.get(found["id"], name) == name for name, part in after.items() for found in part)


@given(groups)
def test_a_group_is_never_torn_apart(tmp_path_factory, names):
    _, splits = split(tmp_path_factory.mktemp("split"), anchored(names + names))
    parts = [{found["group"] for found in part} for part in splits.values()]
    assert len(set().union(*parts)) == sum(map(len, parts))


@given(st.lists(st.text(max_size=6), unique=True), st.integers(0, 5), st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_changed_share_moves_rows_between_that_split_and_train_only(names, seed, validation, test, other):
    before = Parameters(validation=validation, test=test, seed=seed)
    for changed, name in (
        (before.model_copy(update={"test": other}), "test"),
        (before.model_copy(update={"validation": other}), "validation"),
    ):
        moved = {frozenset((split_of(g, before), split_of(g, changed))) for g in names if split_of(g, before) != split_of(g, changed)}
        assert moved <= {frozenset((name, "train"))}


def test_shares_are_about_what_was_asked():
    parameters = Parameters(validation=0.2, test=0.3)
    found = [split_of(str(number), parameters) for number in range(10_000)]
    assert [round(found.count(name) / 10_000, 1) for name in SPLITS] == [0.5, 0.2, 0.3]


def test_another_seed_gives_other_splits():
    first, second = ([split_of(str(n), Parameters(test=0.5, seed=seed)) for n in range(200)] for seed in (0, 1))
    assert 50 < sum(a != b for a, b in zip(first, second, strict=True)) < 150


def test_empty_held_out_splits_are_files_all_the_same(tmp_path):
    metrics, splits = split(tmp_path, [row(n, str(n)) for n in range(5)], validation=0.0, test=0.0)
    assert metrics == {"rows_in": 5, "train": 5, "validation": 0, "test": 0, "left_out": {}} and splits["test"] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.jsonl", "train.jsonl", "validation.jsonl"]


def test_rows_are_copied_to_the_byte(tmp_path):
    rows = [row(n, f"{n}") | {"completion": "\u2028\x00é\ud800"[: n + 1]} for n in range(4)]
    split(tmp_path, rows, validation=0.0, test=0.0)
    assert (tmp_path / "out/train.jsonl").read_bytes() == (tmp_path / "rows.jsonl").read_bytes()


@pytest.mark.parametrize("shares", [{"test": 0.6, "validation": 0.6}, {"test": 0.5, "validation": 0.5}])
def test_an_empty_train_split_is_the_users_error(tmp_path, shares):
    with pytest.raises(UserError, match="no train rows left of 20 rows") as caught:
        split(tmp_path, [row(n, str(n)) for n in range(20)], **shares)
    assert "decrease" in caught.value.problems[0].hint


def test_a_task_of_which_the_source_holds_out_every_row_is_only_asked(tmp_path):
    metrics, splits = split(tmp_path, [row(n, str(n)) | {"split": "test"} for n in range(5)], validation=0.0, test=0.0, fixed=True)
    assert metrics == {"rows_in": 5, "train": 0, "validation": 0, "test": 5, "left_out": {}} and splits["train"] == []


def test_where_the_source_leaves_a_row_to_train_on_and_the_split_takes_it_the_user_hears_of_it(tmp_path):
    rows = [row(n, "one group") | ({"split": "test"} if n else {}) for n in range(5)]
    with pytest.raises(UserError, match="no train rows left of 5 rows"):
        split(tmp_path, rows, validation=0.0, test=0.0, fixed=True)


def test_the_places_are_fixed_for_ever():
    # Another list here would move rows of every workspace between train and test.
    found = [split_of(str(number), Parameters(validation=0.25, test=0.25)) for number in range(24)]
    assert "".join({"train": "r", "validation": "v", "test": "t"}[name] for name in found) == "rtrrrrvttrvrrvttrvrtvrrt"


def test_the_body_starts_without_heavy_imports():
    code = "import sys, stages.split.body; print({'numpy', 'torch', 'jinja2', 'transformers', 'tokenizers', 'tqdm'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


fixed_rows = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, "train", "validation", "test"])), min_size=1, max_size=30
)


@given(fixed_rows, st.floats(0, 0.4))
def test_fixed_splits_are_kept_and_no_group_is_on_both_sides(tmp_path_factory, given_rows, share):
    rows = [row(number, group) | ({"split": name} if name else {}) for number, (group, name) in enumerate(given_rows)]
    anchor = row(99, next(name for name in map(str, range(1000)) if split_of(name, Parameters(test=share)) == "train"))
    metrics, splits = split(tmp_path_factory.mktemp("split"), [*rows, anchor], fixed=True, test=share, validation=0.05)
    assert metrics["rows_in"] == len(rows) + 1 == sum(map(len, splits.values())) + sum(metrics["left_out"].values())
    where = {found["id"]: name for name, part in splits.items() for found in part}
    assert not any("split" in found for part in splits.values() for found in part)
    groups = {name: {found["group"] for found in part} for name, part in splits.items()}
    assert not (groups["test"] & groups["train"] or groups["validation"] & groups["train"] or groups["test"] & groups["validation"])
    assert all(where.get(found["id"], found["split"]) == found["split"] for found in rows if found.get("split") in ("test",))


def test_rows_of_a_group_that_the_source_holds_out_are_counted_and_not_trained_on(tmp_path):
    rows = [
        row(1, "a") | {"split": "test"},
        row(2, "a") | {"split": "train"},
        row(3, "a"),
        row(4, "b") | {"split": "validation"},
        row(5, "c"),
    ]
    metrics, splits = split(tmp_path, rows, fixed=True, test=0.0, validation=0.0)
    assert {name: [found["prompt"] for found in part] for name, part in splits.items()} == {
        "train": ["p5"],
        "validation": ["p4"],
        "test": ["p1"],
    }
    assert metrics["left_out"] == {"group is in the fixed test split": 2}


@given(groups, st.integers(1, 5), st.randoms(use_true_random=False))
def test_caps_bound_the_held_out_splits_and_move_nothing_into_another(tmp_path_factory, names, cap, random):
    folder = tmp_path_factory.mktemp("split")
    rows = anchored(names)
    _, free = split(folder, rows, test=0.3, validation=0.3) if any(split_of(r["group"], SHARES) == "train" for r in rows) else (None, None)
    if free is None:
        return
    metrics, capped = split(folder, rows, test=0.3, validation=0.3, max_test=cap, max_validation=cap)
    for name in ("test", "validation"):
        assert len(capped[name]) == min(cap, len(free[name])) and all(found in free[name] for found in capped[name])
        assert metrics["left_out"].get(f"more than max_{name}", 0) == len(free[name]) - len(capped[name])
    assert capped["train"] == free["train"]
    random.shuffle(rows)
    _, again = split(folder, rows, test=0.3, validation=0.3, max_test=cap, max_validation=cap)
    assert {found["id"] for found in again["test"]} == {found["id"] for found in capped["test"]}


SHARES = Parameters(test=0.3, validation=0.3)
