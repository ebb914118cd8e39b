"""Every method in the real step: the training loop, micro-batches, checkpoints and what is saved."""

from dataclasses import replace

import pytest

from stages.models.folders import load_adapter, load_model
from stages.train.body import run
from stages.train.methods import Ia3, Lora, PrefixTuning, PromptTuning, Qlora
from stages.train.optimizers import Adafactor, AdamW8bit
from tests.stages.initialize.tiny import contents
from tests.stages.train.test_body import difference, trained
from tests.stages.train.tiny import settings, training_job

METHODS = [
    Lora(r=4, use_dora=True),
    Lora(r=4, init_lora_weights="pissa"),
    Qlora(r=4),
    Qlora(r=4, bits=8),
    PromptTuning(num_virtual_tokens=4),
    PrefixTuning(num_virtual_tokens=4),
    Ia3(),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_weights_do_not_depend_on_the_micro_batch(tmp_path, falcon, method):
    whole, split = (trained(tmp_path / str(micro), falcon, method=method, micro_batch=micro) for micro in (None, 2))
    assert difference(whole[1], split[1]) < 1e-4
    assert whole[0]["train_loss"] == pytest.approx(split[0]["train_loss"], abs=1e-5)
    assert 0 < whole[0]["trainable_parameters"] < whole[0]["parameters"]


@pytest.mark.parametrize("values", [{"optimizer": AdamW8bit()}, {"optimizer": Adafactor()}, {"precision": "bfloat16"}], ids=str)
def test_two_runs_leave_the_same_bytes(tmp_path, falcon, values):
    jobs = [training_job(tmp_path / name, falcon) for name in ("one", "two")]
    for job in jobs:
        run(settings(method=Lora(r=4), **values), job)
    assert contents(jobs[0].output) == contents(jobs[1].output)


def test_an_adapter_is_trained_further_and_loads_on_the_same_base(tmp_path, falcon):
    first, second = (training_job(tmp_path / name, falcon) for name in ("first", "second"))
    before = run(settings(method=Lora(r=4), learning_rate=3e-2), first)
    second = replace(second, inputs={**second.inputs, "adapter": first.output})
    after = run(settings(method=Lora(r=4, lora_dropout=0.1), learning_rate=3e-3), second)
    fresh = run(settings(method=Lora(r=4), learning_rate=3e-3), training_job(tmp_path / "fresh", falcon))
    assert after["train_loss"] < fresh["train_loss"] and after["train_loss"] < before["train_loss"] + 0.05
    load_adapter(load_model(falcon), second.output)
