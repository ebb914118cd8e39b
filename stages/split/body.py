"""The work of split: a hash of each row's group and the seed says which split it belongs to."""

from contextlib import ExitStack

from engine.errors import UserError
from stages.common.hashing import fraction
from stages.common.job import Job, Metrics
from stages.common.jsonl import Writer, read_objects
from stages.common.progress import progress
from stages.split import Parameters

SPLITS = ("train", "validation", "test")


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`, rows in the order of the input; raises UserError where train is empty."""
    rows_in = 0
    with ExitStack() as stack:
        writers = {split: stack.enter_context(Writer(job.output / f"{split}.jsonl")) for split in SPLITS}
        for _, row in progress(read_objects(job.inputs["rows"]), job.name):
            group = row["group"]
            assert isinstance(group, str)
            writers[split_of(group, parameters)].write(row)
            rows_in += 1
    counts = {split: writer.rows for split, writer in writers.items()}
    assert rows_in == sum(counts.values())
    if not counts["train"]:
        what = f"none of {rows_in} rows is left to train on: test = {parameters.test} and validation = {parameters.validation} are held out"
        raise UserError(what, hint="make the shares smaller, or give more rows; rows of one group go together")
    return {"rows_in": rows_in, **counts}


def split_of(group: str, parameters: Parameters) -> str:
    """The split of every row of GROUP: test takes the lower end of [0, 1), validation the upper end, train what lies between.

    One end each, so that a changed share moves rows between that split and train only.
    """
    position = fraction("split", parameters.seed, group)
    if position < parameters.test:
        return "test"
    return "validation" if position >= 1 - parameters.validation else "train"
