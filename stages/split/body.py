"""Body of split: the source assigns a row's split, or a hash of its group and the seed does."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from heapq import nsmallest
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from stages.process.hashing import seed_from
from stages.process.job import Job, Metrics
from stages.process.progress import progress
from stages.rows.jsonl import Writer, read_objects
from stages.rows.splits import SPLITS, split_of
from stages.split import Parameters

HELD_OUT = ("test", "validation")
"""Held-out splits, which must not share groups with train, in order of precedence."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`, rows in the order of the input.

    Raises UserError if train is empty, unless the source holds out every row: such a task is only evaluated.
    """
    division = Division(parameters, job.inputs["rows"])
    left_out: Counter[str] = Counter()
    rows_in = held_out = 0
    with ExitStack() as stack:
        writers = {split: stack.enter_context(Writer(job.output / f"{split}.jsonl")) for split in SPLITS}
        for row in progress(division.rows(), job.name):
            rows_in += 1
            held_out += row.get("split") in HELD_OUT
            split, reason = division.place(row)
            if reason:
                left_out[reason] += 1
            else:
                row.pop("split", None)
                writers[split].write(row)
    counts = {split: writer.rows for split, writer in writers.items()}
    assert rows_in == sum(counts.values()) + left_out.total()
    if not counts["train"] and not (rows_in and held_out == rows_in):
        what = f"no train rows left of {rows_in} rows: test = {parameters.test} and validation = {parameters.validation} are held out"
        raise UserError(what, hint="decrease the shares, or give the task more rows; rows of one group stay together")
    return {"rows_in": rows_in, **counts, "left_out": dict(sorted(left_out.items()))}


class Division:
    """Assigns rows to splits; holds the groups of fixed splits and, for capped splits, the ids of the chosen rows."""

    def __init__(self, parameters: Parameters, path: Path) -> None:
        self.parameters, self.path = parameters, path
        self._fixed = self._fixed_groups() if parameters.fixed else {}
        self._chosen = {
            split: self._smallest(split, cap)
            for split, cap in (("validation", parameters.max_validation), ("test", parameters.max_test))
            if cap is not None
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        return (row for _, row in read_objects(self.path))

    def place(self, row: dict[str, Any]) -> tuple[str, str | None]:
        """The split of ROW, and the reason if it is in none."""
        split, reason = self._uncapped(row)
        if reason is None and split in self._chosen and row["id"] not in self._chosen[split]:
            reason = f"more than max_{split}"
        return split, reason

    def _uncapped(self, row: dict[str, Any]) -> tuple[str, str | None]:
        group = row["group"]
        assert isinstance(group, str)
        # A row without a split, or in the source's train, may also be held out by its share.
        own = row.get("split")
        split = own if own in HELD_OUT else split_of(group, self.parameters)
        fixed = self._fixed.get(group)
        return (split, None) if fixed in (None, split) else (split, f"group is in the fixed {fixed} split")

    def _fixed_groups(self) -> dict[str, str]:
        """Groups with held-out rows in the source, with their split; test takes precedence."""
        found: dict[str, str] = {}
        for row in self.rows():
            if row.get("split") in HELD_OUT and found.get(row["group"]) != "test":
                found[row["group"]] = row["split"]
        return found

    def _smallest(self, split: str, count: int) -> frozenset[str]:
        """Ids of the COUNT rows of a split with the smallest hashes, so that an added row displaces at most one."""
        placed = ((row["id"], *self._uncapped(row)) for row in self.rows())
        ids = (identity for identity, found, reason in placed if found == split and reason is None)
        return frozenset(nsmallest(count, ids, key=lambda identity: seed_from("cap", self.parameters.seed, identity)))
