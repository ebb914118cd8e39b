"""The memory of a training, against the tensors that a real one allocates, and against the arithmetic of the papers."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, TrainerCallback

from engine.estimate.configurations import configuration
from engine.estimate.memory import Layout, Memory, activations, memory
from engine.estimate.methods import trainable_parameters
from engine.estimate.models import Model, model_of
from stages.common.models import count_parameters
from stages.initialize.architectures import Bloom, Falcon, Gpt2, Llama
from stages.train.batches import Batches
from stages.train.batching import Padded
from stages.train.data import Rows
from stages.train.division import Bound, Share
from stages.train.methods import Full, Lora
from stages.train.trainer import OrderedTrainer, arguments, token_loss
from tests.stages.train.tiny import settings, training_job

SIZES = {"hidden_size": 64, "layers": 4, "heads": 4, "max_length": 256}
VOCABULARY = 300
ARCHITECTURES = [
    Bloom(**SIZES),
    Falcon(**SIZES),
    Falcon(**SIZES, kv_heads=2),
    Falcon(**SIZES, new_decoder_architecture=False),
    Gpt2(**SIZES),
    Llama(**SIZES),
]
METHODS = [Full(), Lora(r=8)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def size_of(architecture: Any, vocabulary: int = VOCABULARY) -> Model:
    size = model_of(configuration(architecture, vocabulary) or {})
    assert size is not None
    return size


class Watch(TrainerCallback):
    """Bytes of weights, gradients and optimizer states, taken where all of them exist."""

    seen: Memory | None = None

    def on_optimizer_step(self, args, state, control, model, optimizer, **kwargs):
        weights = list(model.parameters())
        states = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)]
        gradients = sum(weight.grad.nbytes for weight in weights if weight.grad is not None)
        self.seen = Memory(sum(weight.nbytes for weight in weights), gradients, sum(value.nbytes for value in states), 0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_weights_gradients_and_optimizer_states_are_those_of_a_real_training(tmp_path, method):
    architecture = Falcon(hidden_size=32, layers=2, heads=4)
    model = method.prepare(AutoModelForCausalLM.from_config(architecture.config(VOCABULARY, 0, 1)))
    job = training_job(tmp_path, tmp_path / "model", {"copy": 6})
    rows = Rows.open(job.inputs["order"], job.group("tokens"))
    parameters, watch = settings(method=method, micro_batch=2), Watch()
    trainer = OrderedTrainer(parameters, model=model, args=arguments(parameters, job.scratch), train_dataset=rows, callbacks=[watch])
    trainer.batches = Batches(rows, Padded(), Bound(2))
    trainer.micro_batches = trainer.batches.micro_batches(range(6), Share())
    trainer.train()
    size = size_of(architecture)
    trainable = trainable_parameters(size, method)
    needed = memory(size, trainable, trainable if method.makes_adapter else 0, 2, 14)
    assert watch.seen is not None
    assert (needed.weights, needed.gradients) == (watch.seen.weights, watch.seen.gradients)
    # torch counts each tensor's steps in a number of its own.
    assert needed.optimizer == watch.seen.optimizer - 4 * sum(weight.requires_grad for weight in model.parameters())
    assert needed.optimizer == pytest.approx(watch.seen.optimizer, rel=0.01)


def kept(model: Any, rows: int, length: int) -> int:
    """Bytes that a forward pass of ROWS rows, one of them padded, keeps for the backward pass beside the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor  # which keeps it, so that no other takes its place
        return tensor

    ids, mask = torch.randint(2, VOCABULARY, (rows, length)), torch.ones(rows, length, dtype=torch.int64)
    mask[0, length // 2 :] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model.train()(input_ids=ids, attention_mask=mask, use_cache=False)
        token_loss(outputs, ids, rows * length)
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in found.items() if pointer not in weights)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_activations_are_nearly_those_that_a_real_forward_pass_keeps(architecture, method):
    model = method.prepare(AutoModelForCausalLM.from_config(architecture.config(VOCABULARY, 0, 1)))
    size = size_of(architecture)
    for rows, length in [(4, 64), (2, 200)]:
        estimated, real = activations(size, rows, length, Layout()), kept(model, rows, length)
        # More: the gradient of the logits is not there yet, and frozen norms keep a little less.
        assert 0.97 * real < estimated < 1.2 * real


SIZE = size_of(Llama(hidden_size=256, layers=8, heads=8), 4096)
P = SIZE.parameters


def test_mixed_precision_takes_sixteen_bytes_for_each_parameter():
    """ZeRO, section 3.1: 2 for the weight, 2 for its gradient, 12 for AdamW with its float32 copy."""
    full = memory(SIZE, P, 0, 1, 1, Layout(weight_bytes=2))
    assert (full.weights, full.gradients, full.optimizer, full.states) == (2 * P, 2 * P, 12 * P, 16 * P)
    assert memory(SIZE, P, 0, 1, 1).states == 16 * P


@pytest.mark.parametrize(("stage", "share"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_stages_share_as_the_table_of_zero_says(stage, share):
    """ZeRO, table 1: GB of a 7.5B model on 64 devices."""
    layout = Layout(weight_bytes=2, zero_stage=stage, devices=64)
    needed = memory(SIZE, P, 0, 1, 1, layout)
    gathered = 2 * SIZE.largest if stage == 3 else 0
    assert (needed.states - gathered) / P * 7.5 == pytest.approx(share, rel=0.01)


def test_what_is_offloaded_leaves_the_device():
    two = memory(SIZE, P, 0, 1, 1, Layout(weight_bytes=2, zero_stage=2, devices=4, offload_optimizer=True))
    assert (two.weights, two.gradients, two.optimizer) == (2 * P, 0, 0)
    one = memory(SIZE, P, 0, 1, 1, Layout(weight_bytes=2, zero_stage=1, devices=4, offload_optimizer=True))
    assert (one.gradients, one.optimizer) == (2 * P, 0)
    three = memory(SIZE, P, 0, 1, 1, Layout(zero_stage=3, devices=4, offload_parameters=True))
    assert three.weights == 4 * SIZE.largest and three.gradients == P


def test_quantisation_shrinks_the_matrices_of_the_layers_alone():
    matrices = SIZE.layers * sum(layer.weights for layer in SIZE.block)
    eight = memory(SIZE, 10, 10, 1, 1, Layout(weight_bytes=2, quantisation_bits=8))
    assert eight.weights == 2 * (P + 10 - matrices) + matrices
    four = memory(SIZE, 10, 10, 1, 1, Layout(weight_bytes=2, quantisation_bits=4))
    assert four.weights - 2 * (P + 10 - matrices) == pytest.approx(matrices * 4.127 / 8, abs=1)


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all():
    plain, checkpointed = (activations(SIZE, 2, 100, Layout(gradient_checkpointing=on)) for on in (False, True))
    layer = 4 * 200 * (SIZE.stored + 100)
    assert plain - checkpointed == (SIZE.layers - 1) * layer - 4 * SIZE.layers * 200 * SIZE.hidden


def test_bloom_keeps_a_matrix_for_each_head():
    bloom = size_of(Bloom(**SIZES))
    by_length = [activations(bloom, 1, length, Layout()) for length in (100, 200, 300)]
    assert by_length[2] - 2 * by_length[1] + by_length[0] == 4 * bloom.layers * bloom.heads * 2 * 100**2


WRONG = [
    {"zero_stage": 4},
    {"devices": 0},
    {"quantisation_bits": 3},
    {"offload_optimizer": True},
    {"offload_parameters": True, "zero_stage": 2},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_layouts_that_do_not_exist_are_ours_to_mend(wrong):
    with pytest.raises(AssertionError):
        Layout(**wrong)


layouts = st.builds(
    lambda stage, devices, optimizer, parameters, bits, checkpointing: Layout(
        2, stage, devices, optimizer and stage > 0, parameters and stage == 3, bits, checkpointing
    ),
    st.integers(0, 3), st.integers(1, 16), st.booleans(), st.booleans(), st.sampled_from([None, 4, 8]), st.booleans(),
)  # fmt: skip


@given(layouts, st.integers(1, 64), st.integers(1, 500), st.integers(1, P))
def test_more_never_takes_less(layout, rows, length, trainable):
    needed = memory(SIZE, trainable, 0, rows, length, layout)
    assert needed.total == needed.weights + needed.gradients + needed.optimizer + needed.activations == needed.as_data()["total"]
    assert min(needed.as_data().values()) >= 0 and all(isinstance(size, int) for size in needed.as_data().values())
    assert memory(SIZE, trainable, 0, rows + 1, length, layout).activations > needed.activations
    assert memory(SIZE, trainable, 0, rows, length + 1, layout).activations > needed.activations
    assert memory(SIZE, min(P, trainable + 1), 0, rows, length, layout).states >= needed.states
    assert memory(SIZE, trainable, 7, rows, length, layout).states >= needed.states


def test_the_estimate_counts_what_the_real_model_has():
    model = AutoModelForCausalLM.from_config(Llama(hidden_size=256, layers=8, heads=8).config(4096, 0, 1))
    assert count_parameters(model) == P
