"""The estimate that stands beside a measurement is that of the very training, and near what the training took."""

import json
import subprocess
import sys

import pytest
import torch

from engine.estimate.training import error, estimated
from stages.mix import Parameters as Mixture
from stages.mix.samplers import Equal
from stages.train import Parameters
from stages.train.memory.peak import _in_use
from stages.train.methods import Full, Lora
from tests.stages.initialize.tiny import make_model
from tests.stages.train.matrix import folder_of

MEASURED = {"longest_row": 30, "micro_batch_rows": 4, "peak_memory_bytes": 10, "memory_before_bytes": 4}


def test_it_is_for_the_longest_row_and_the_micro_batch_that_there_were():
    found = estimated(Parameters(method=Lora(r=4)), {"model": folder_of("Llama")}, MEASURED)["estimated"]
    assert (found["length"], found["rows"], found["exact_model"]) == (30, 4, True)
    more = estimated(Parameters(method=Lora(r=4)), {"model": folder_of("Llama")}, MEASURED | {"micro_batch_rows": 8})["estimated"]
    assert more["activations"] > found["activations"] and more["weights"] == found["weights"]


def test_both_answers_of_a_pair_are_lines_of_their_own():
    parameters = Parameters(method=Lora(r=4), attention="eager")
    pairs = MEASURED | {"longest_row": 60, "answers_of_row": 2}
    found = estimated(parameters, {"model": folder_of("Llama")}, pairs)["estimated"]
    single = estimated(parameters, {"model": folder_of("Llama")}, MEASURED | {"micro_batch_rows": 8})["estimated"]
    assert (found["length"], found["rows"]) == (60, 4) and found["activations"] == single["activations"]


def test_other_kinds_and_unknown_models_have_none(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert estimated(Parameters(method=Full()), {"model": tmp_path}, MEASURED) == {}
    assert estimated(Parameters(method=Full()), {}, {}) == {}
    assert estimated(Mixture(sampler=Equal()), {}, MEASURED) == {}


def test_the_error_is_a_share_of_what_the_training_itself_took():
    assert error(MEASURED | {"training_memory_bytes": 3, "estimated": {"total": 9}}) == pytest.approx(2.0)
    # Before that was measured: of the peak beyond the process.
    assert error(MEASURED | {"estimated": {"total": 9}}) == pytest.approx(0.5)
    assert error(MEASURED) is None and error({"estimated": {"total": 9}}) is None


PROGRAM = """
import json, sys
from pathlib import Path
from engine.estimate.training import error, estimated
from stages.train.body import run
from stages.train.methods import Full, Lora
from tests.stages.train.tiny import settings, training_job

job = training_job(Path(sys.argv[1]), Path(sys.argv[3]), {"copy": 12}, length=(200, 210), vocab=250)
parameters = settings(method={"full": Full(), "lora": Lora()}[sys.argv[2]], threads=1, global_batch={"rows": 6})
measured = run(parameters, job)["_measured"]
measured |= estimated(parameters, job.inputs, measured)
print(json.dumps(measured | {"error": error(measured)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(_in_use(torch.device("cpu")) is None, reason="glibc 2.33 or newer tells what is in use")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_is_near_what_a_real_training_takes(tmp_path, method):
    """Beside the memory in use, not the process, which also holds Python, libraries, and what the allocator keeps of freed memory."""
    model = make_model(tmp_path / "model", "llama", hidden_size=256, layers=6, max_length=512)  # here: its peak is not the training's
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), method, str(model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert abs(measured["error"]) < 0.2, measured
    assert measured["training_memory_bytes"] < measured["peak_memory_bytes"] - measured["memory_before_bytes"] + 30e6
