"""Several trainings in one group of processes, one after another; torchrun starts it with the name of a file.

FILE holds a list of cases: name, zero, method, stop_after (steps after which the training is asked to stop, or null), scratch, inputs.
Starting a process takes seconds, and a tiny training far less.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.part import with_tuples
from stages.common.job import Job, Preempted
from stages.common.models import prepare_process
from stages.train import Parameters
from stages.train.launch import problems_text
from stages.train.torchrun import die_with_parent
from stages.train.zero import Zero


def main(file: Path) -> None:
    """Train every case; the first process leaves NAME.safetensors and NAME.json beside FILE."""
    die_with_parent()
    prepare_process(1)
    import torch

    from stages.train.worker import _group

    with _group(Parameters(method="full", zero=Zero(stage=1)), torch.device("cpu")) as (rank, count):
        for case in json.loads(file.read_text("utf-8")):
            outcome = _train(case, rank, count, file.parent)
            if rank == 0:
                (file.parent / f"{case['name']}.json").write_text(json.dumps(outcome))


def _train(case: dict[str, Any], rank: int, count: int, folder: Path) -> Any:
    import torch
    from safetensors.torch import save_file

    from engine.errors import UserError
    from stages.train import trainer
    from stages.train.division import Share
    from stages.train.work import matter, work

    parameters = Parameters.model_validate(with_tuples(case["parameters"]))
    scratch = Path(case["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    job = Job(case["name"], {role: Path(path) for role, path in case["inputs"].items()}, folder, None, scratch)
    if (stop := case.get("stop_after")) is not None:
        original = trainer.StopRequest.__bool__
        calls = iter(range(1, 10**6))
        trainer.StopRequest.__bool__ = lambda self: next(calls) >= stop  # type: ignore[method-assign]
    try:
        result = work(parameters, job, matter(parameters, job), Share(count, rank), torch.device("cpu"))
    except Preempted:
        return "preempted"
    except UserError as error:
        return problems_text(error)
    finally:
        if stop is not None:
            trainer.StopRequest.__bool__ = original  # type: ignore[method-assign]
    if rank == 0:
        assert result.weights is not None
        save_file(result.weights, folder / f"{case['name']}.safetensors")
    return {"curve": [dataclasses.astuple(point) for point in result.curve], "validation": result.validation_loss}


if __name__ == "__main__":
    assert os.environ["RANK"]
    main(Path(sys.argv[1]))
