"""The DeepSpeed configuration of a spec is one that DeepSpeed's own parser takes."""

import json
import subprocess
import sys

import pytest

from stages.train.zero import Zero, deepspeed_config

CHOICES = [
    Zero(stage=1),
    Zero(stage=2, offload_optimizer="cpu"),
    Zero(stage=3, offload_optimizer="cpu", offload_parameters="cpu"),
    Zero(stage=3, offload_optimizer="nvme", offload_parameters="nvme", path="/disk"),
]


@pytest.mark.slow
def test_deepspeeds_own_parser_takes_every_choice():
    script = (
        "import json, os, sys; os.environ |= {'DS_ACCELERATOR': 'cpu', 'WORLD_SIZE': '1'}\n"
        "from deepspeed.runtime.config import DeepSpeedConfig\n"
        "for given in json.loads(sys.argv[1]):\n"
        "    config = DeepSpeedConfig(given); zero = config.zero_config\n"
        "    parts = (zero.offload_optimizer, zero.offload_param)\n"
        "    places = [str(getattr(part.device, 'value', part.device)) if part else None for part in parts]\n"
        "    print(json.dumps([int(zero.stage), places, config.gradient_clipping]))\n"
    )
    configurations = [deepspeed_config(zero, 0.7) for zero in CHOICES]
    done = subprocess.run([sys.executable, "-c", script, json.dumps(configurations)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[") and line.endswith("]") and "INFO" not in line]
    assert found == [[zero.stage, [zero.offload_optimizer, zero.offload_parameters], 0.7] for zero in CHOICES]


def test_no_process_of_ours_averages_over_rows():
    config = deepspeed_config(Zero(stage=2), 1.0)
    assert config["train_micro_batch_size_per_gpu"] == config["gradient_accumulation_steps"] == 1
