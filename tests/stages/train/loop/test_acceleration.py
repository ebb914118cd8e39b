"""Precision, layers that are computed twice, compiled and fused code: what they change, and what is said where they are not there."""

import json
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from engine.core.errors import UserError
from stages.train import Parameters
from stages.train.loop.acceleration import open_model, speed_up
from stages.train.loop.precision import autocast, prepare_precision, scales_loss, weights_dtype
from stages.train.methods import Full, Lora, PrefixTuning, Qlora
from tests.stages.train.matrix import METHODS, folder_of, loss_of, prepared, train

CPU_ONLY = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


def parameters(**values):
    return Parameters(**({"method": Full()} | values))


@pytest.mark.parametrize("method", [Full(), Lora(r=4), Qlora(r=4)], ids=lambda method: method.kind)
@pytest.mark.parametrize("family", ["Llama", "Bloom", "T5"])
def test_bfloat16_learns_nearly_as_float32(method, family):
    losses = []
    for precision in ("float32", "bfloat16"):
        chosen = parameters(method=method, precision=precision)
        torch.manual_seed(5)
        model = method.prepare(open_model(chosen, folder_of(family)))
        trained = {weight.dtype for weight in model.parameters() if weight.requires_grad}
        assert trained == {torch.float32}, "what is learnt keeps its last digits"
        frozen = {weight.dtype for weight in model.parameters() if not weight.requires_grad and weight.is_floating_point()}
        # T5's own class keeps one of its layers in full precision.
        assert frozen - {torch.float32} <= {getattr(torch, precision)} and (frozen or method.kind == "full")
        losses.append(train(model, learning_rate=0.01, around=partial(autocast, chosen, "cpu")))
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0]
    assert losses[1][-1] < losses[1][0]


@CPU_ONLY
@pytest.mark.parametrize("precision", ["float16", "tf32"])
def test_a_precision_of_gpus_is_refused_without_one(precision):
    with pytest.raises(UserError, match=f"{precision} needs a GPU") as caught:
        prepare_precision(parameters(precision=precision))
    assert "bfloat16" in str(caught.value.problems[0].hint)


def test_only_float16_scales_the_loss():
    assert [scales_loss(parameters(precision=p)) for p in ("float32", "bfloat16", "float16")] == [False, False, True]
    assert weights_dtype(parameters(precision="float16")) == "float32"
    assert weights_dtype(parameters(precision="float16", method=Lora())) == "float16"


@pytest.mark.parametrize("name", ["full", "lora", "qlora, NF4", "prompt_tuning", "ia3"])
@pytest.mark.parametrize("family", ["Llama", "Falcon (7B's layer)", "T5"])
def test_layers_that_are_computed_twice_give_the_same(name, family):
    method = METHODS[name]
    plain = train(prepared(family, method))
    checkpointed = train(speed_up(prepared(family, method), parameters(method=method, gradient_checkpointing=True)))
    # Three steps of AdamW enlarge rounding, on some processors to 2e-5; a layer that was left out moves the loss in the second digit.
    assert checkpointed == pytest.approx(plain, rel=1e-4)


def test_checkpointed_layers_keep_less():
    def kept(checkpointing):
        model = speed_up(prepared("Llama", Full()), parameters(gradient_checkpointing=checkpointing)).train()
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor.numel()) or tensor, lambda tensor: tensor):
            loss_of(model)
        return sum(seen)

    assert kept(True) < kept(False) / 2


@pytest.mark.parametrize("family", ["Llama", "T5"])
def test_a_prefix_really_fails_with_checkpointed_layers(family):
    """Why the specs' validation refuses it."""
    method = PrefixTuning(num_virtual_tokens=3)
    assert not method.checkpoints_layers
    model = speed_up(prepared(family, method), parameters(method=method, gradient_checkpointing=True))
    with pytest.raises(RuntimeError, match="size of tensor"):
        train(model)


def test_compiled_models_keep_the_names_of_their_weights():
    model = prepared("Llama", Lora(r=4))
    names = list(model.state_dict())
    assert list(speed_up(model, parameters(torch_compile=True)).state_dict()) == names and model._compiled_call_impl is not None


COMPILED = """
import json
from stages.models.folders import prepare_process
prepare_process(1)
import torch
from stages.train.methods import Lora
from stages.train.loop.acceleration import speed_up
from tests.stages.train.matrix import prepared, train
from tests.stages.train.loop.test_acceleration import parameters

plain = train(prepared("Llama", Lora(r=4)))
model = speed_up(prepared("Llama", Lora(r=4)), parameters(torch_compile=True))
print(json.dumps([plain, train(model), torch._dynamo.utils.counters["stats"].get("unique_graphs", 0)]))
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++ for the CPU, and there is none")
def test_a_compiled_model_learns_the_same():
    """In a process of its own: what is not asked for is never compiled, and this turns that off."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, compiled, graphs = json.loads(done.stdout.splitlines()[-1])
    assert graphs > 0, "something was compiled"
    assert compiled == pytest.approx(plain, rel=1e-4) and compiled[-1] < compiled[0]


@CPU_ONLY
def test_fused_kernels_that_are_not_there_are_told(capsys):
    model = prepared("Llama", Full())
    assert speed_up(model, parameters(kernels="liger")) is model
    assert "liger needs a GPU" in capsys.readouterr().err
