"""The memory of a training, against the tensors that a real one allocates, and against the arithmetic of the papers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from benchmarks.tensors import Peak
from engine.estimate.configurations import configuration
from engine.estimate.memory import Layout, activations, memory
from engine.estimate.methods import counts
from engine.estimate.models import Model, model_of
from engine.estimate.training import Matter, estimate, layout_of
from stages.initialize.architectures import T5, Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3
from stages.models.answers import answer_logps
from stages.models.folders import auto_class, count_parameters, save_model
from stages.models.projection import predictions
from stages.train import Parameters
from stages.train.loop.acceleration import open_model, speed_up
from stages.train.loop.dropout import install
from stages.train.loop.loss import token_loss
from stages.train.loop.precision import autocast
from stages.train.methods import Full, Lora, PromptTuning, Qlora
from stages.train.objectives.base import Answers, Totals
from stages.train.objectives.distill import Distill, Taught
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.kto import Kto
from stages.train.objectives.orpo import Orpo
from stages.train.objectives.supervised import Supervised
from stages.train.optimizers import Adafactor, AdamW, AdamW8bit, PagedAdamW

SIZES = {"hidden_size": 64, "layers": 4, "heads": 4, "max_length": 256}
VOCABULARY = 300
ARCHITECTURES = [
    Bloom(**SIZES),
    Falcon(**SIZES),
    Falcon(**SIZES, kv_heads=2),
    Falcon(**SIZES, new_decoder_architecture=False),
    Gpt2(**SIZES),
    Llama(**SIZES),
    GptNeox(**SIZES),
    Mistral(**SIZES, kv_heads=2),
    Qwen2(**SIZES),
    Qwen3(**SIZES),
    T5(**SIZES),
]
METHODS = [Full(), Lora(r=8)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def size_of(architecture: Any, vocabulary: int = VOCABULARY) -> Model:
    size = model_of(configuration(architecture, vocabulary) or {})
    assert size is not None
    return size


def fresh(architecture: Any) -> Any:
    """The real model of ARCHITECTURE, with random weights."""
    config = architecture.config(VOCABULARY, 0, 1)
    return auto_class(config).from_config(config)


def quantised(model: Any) -> int:
    """Bytes of the constants that belong to the quantised weights of MODEL, which are no weights of their own."""
    states = [weight.quant_state for weight in model.parameters() if type(weight).__name__ == "Params4bit"]
    inner = [state.state2 for state in states if state.nested]
    return sum(state.absmax.nbytes for state in [*states, *inner])


TRAINED = [
    (Full(), AdamW(), "float32"),
    (Full(), AdamW(), "bfloat16"),
    (Lora(r=8), AdamW(), "float32"),
    (Lora(r=8), AdamW(), "bfloat16"),
    (Lora(r=8, use_dora=True), PagedAdamW(), "float32"),
    (Full(), AdamW8bit(), "float32"),
    (Full(), Adafactor(), "float32"),
    (Qlora(r=8), AdamW(), "bfloat16"),
    (Qlora(r=8, double_quant=False), AdamW(), "bfloat16"),
    (Qlora(r=8, bits=8), AdamW(), "bfloat16"),
    (PromptTuning(), AdamW(), "bfloat16"),
]


@pytest.mark.parametrize(("method", "optimizer", "precision"), TRAINED, ids=str)
def test_weights_gradients_and_optimizer_states_are_those_of_a_real_training(tmp_path, method, optimizer, precision):
    architecture = Llama(hidden_size=256, layers=2, heads=4)
    save_model(fresh(architecture), tmp_path)
    parameters = Parameters(method=method, optimizer=optimizer, precision=precision)
    model = method.prepare(open_model(parameters, tmp_path))
    made = optimizer.make(model.named_parameters(), 1e-3, (0.9, 0.999), 0.1)
    with autocast(parameters, "cpu"):
        logits = model(input_ids=torch.arange(2, 10)[None]).logits
    logits.float().square().mean().backward()
    made.step()
    counted = counts(size_of(architecture), method)
    assert counted is not None
    needed = memory(size_of(architecture), counted.trained, counted.added, 1, 8, layout_of(parameters))
    weights = list(model.parameters())
    states = [value for values in made.state.values() for value in values.values() if isinstance(value, torch.Tensor) and value.ndim]
    # A published number of bits stands for the constants of quantised blocks, and an 8-bit code has a table for each weight.
    assert needed.weights == pytest.approx(sum(weight.nbytes for weight in weights) + quantised(model), rel=0.01)
    assert needed.gradients == sum(weight.grad.nbytes for weight in weights if weight.grad is not None)
    tables = sum(value.nbytes for values in made.state.values() for key, value in values.items() if key.startswith("qmap"))
    assert needed.optimizer == pytest.approx(
        sum(value.nbytes for value in states) - tables, rel=0.02, abs=5e4 * isinstance(optimizer, Adafactor)
    )


def kept(model: Any, rows: int, length: int) -> int:
    """Bytes that a forward pass of ROWS rows, one of them padded, keeps for the backward pass beside the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor  # which keeps it, so that no other takes its place
        return tensor

    ids, mask = torch.randint(2, VOCABULARY, (rows, length)), torch.ones(rows, length, dtype=torch.int64)
    mask[0, length // 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model.train()(**inputs, use_cache=False)
        # What every training's loss keeps: a copy of the logits in float32, and their softmax.
        cross_entropy(outputs.logits.reshape(-1, VOCABULARY).float(), ids.reshape(-1), reduction="sum")
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in found.items() if pointer not in weights)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_activations_are_nearly_those_that_a_real_forward_pass_keeps(architecture, method):
    model = method.prepare(fresh(architecture))
    size = size_of(architecture)
    for rows, length in [(4, 64), (2, 200)]:
        # The logits twice: the loss here keeps a copy of them and their softmax.
        estimated, real = activations(size, rows, length, Layout(supervised=0.0)), kept(model, rows, length)
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
    matrices = sum(count * layer.weights for layer, count in SIZE.inside)
    eight = memory(SIZE, 10, 10, 1, 1, Layout(weight_bytes=2, quantisation_bits=8))
    assert eight.weights == 2 * (P + 10 - matrices) + matrices
    four = memory(SIZE, 10, 10, 1, 1, Layout(weight_bytes=2, quantisation_bits=4))
    assert four.weights - 2 * (P + 10 - matrices) == pytest.approx(matrices * 4.127 / 8, abs=1)


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all():
    plain, checkpointed = (activations(SIZE, 2, 100, Layout(gradient_checkpointing=on)) for on in (False, True))
    (stack,) = SIZE.stacks
    layer, loss = 4 * 200 * (stack.stored + 100), 12 * 200 * SIZE.vocabulary
    # The loss is done with when the last layer is computed again: there is room for the larger of the two.
    assert plain - checkpointed == stack.layers * (layer - 4 * 200 * SIZE.hidden) + loss - max(loss, layer)


def test_bloom_keeps_a_matrix_for_each_head():
    bloom = size_of(Bloom(**SIZES))
    by_length = [activations(bloom, 1, length, Layout()) for length in (100, 200, 300)]
    assert by_length[2] - 2 * by_length[1] + by_length[0] == 4 * bloom.stacks[0].layers * bloom.heads * 2 * 100**2


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
        weight_bytes=2, zero_stage=stage, devices=devices, offload_optimizer=optimizer and stage > 0,
        offload_parameters=parameters and stage == 3, quantisation_bits=bits, gradient_checkpointing=checkpointing,
    ),
    st.integers(0, 3), st.integers(1, 16), st.booleans(), st.booleans(), st.sampled_from([None, 4, 8]), st.booleans(),
)  # fmt: skip


@given(layouts, st.integers(1, 64), st.integers(1, 500), st.integers(1, P))
def test_more_never_takes_less(layout, rows, length, trainable):
    needed = memory(SIZE, trainable, 0, rows, length, layout)
    assert needed.total == needed.weights + needed.gradients + needed.optimizer + needed.activations == needed.as_data()["total"]
    once = memory(SIZE, trainable, 0, rows, length, replace(layout, accumulates=False))
    backward = once.total - once.weights - once.optimizer
    assert max(once.gradients, once.activations) <= backward <= needed.gradients + needed.activations
    assert min(needed.as_data().values()) >= 0 and all(isinstance(size, int) for size in needed.as_data().values())
    assert memory(SIZE, trainable, 0, rows + 1, length, layout).activations > needed.activations
    assert memory(SIZE, trainable, 0, rows, length + 1, layout).activations > needed.activations
    assert memory(SIZE, min(P, trainable + 1), 0, rows, length, layout).states >= needed.states
    assert memory(SIZE, trainable, 7, rows, length, layout).states >= needed.states


def test_the_estimate_counts_what_the_real_model_has():
    model = AutoModelForCausalLM.from_config(Llama(hidden_size=256, layers=8, heads=8).config(4096, 0, 1))
    assert count_parameters(model) == P


def loss_of(parameters: Parameters, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of a batch, with a teacher that predicts the same tokens everywhere."""
    tokens = len(targets)
    if not isinstance(parameters.objective, Distill):
        return token_loss(logits, targets, tokens)
    k = parameters.objective.top_k
    taught = Taught(torch.arange(k).repeat(tokens, 1), torch.full((tokens, k), -3.0), torch.full((tokens,), -1.0))
    return parameters.objective.loss_of(logits, targets, taught, tokens)[0]


def supervised_of(labels: torch.Tensor) -> list[int]:
    """The supervised tokens of each row."""
    found: list[int] = (labels[:, 1:] >= 0).sum(1).tolist()
    return found


def answers_loss(objective: Any, logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor, kl: float) -> torch.Tensor:
    """The loss of pairs, whose chosen and rejected answers take turns, with a reference that knows nothing."""
    counts, pairs = supervised_of(labels), len(labels) // 2
    logps, tokens, reference = answer_logps(logits, targets, counts), torch.tensor(counts, dtype=torch.float32), torch.zeros(pairs)
    answers = Answers(logps[::2], logps[1::2], tokens[::2], tokens[1::2], reference, reference)
    loss: torch.Tensor = objective.loss_of(answers, Totals(pairs, pairs, sum(counts[::2]), kl))
    return loss


def mismatched(model: Any, parameters: Parameters, ids: torch.Tensor, labels: torch.Tensor) -> float:
    """The forward pass of KTO's mismatched answers, as the training loop takes it before each step."""
    model.eval()
    with torch.no_grad(), autocast(parameters, "cpu"):
        logits, targets = predictions(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels)
        kl = float(answer_logps(logits, targets, supervised_of(labels)).sum())
    model.train()
    return max(kl, 0.0)


def step_of(model: Any, made: Any, parameters: Parameters, ids: torch.Tensor, labels: torch.Tensor) -> None:
    """One optimizer step of one micro-batch, as the training loop takes it."""
    objective = parameters.objective
    kl = mismatched(model, parameters, ids, labels) if isinstance(objective, Kto) else 0.0
    with autocast(parameters, "cpu"):
        logits, targets = predictions(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels)
    if objective.on_pairs:
        loss = answers_loss(objective, logits, targets, labels, kl)
    else:
        loss = loss_of(parameters, logits, targets)
    del logits
    loss.backward()
    made.step()
    made.zero_grad()


PEAKS = {
    "full": {"method": Full()},
    "full, 8-bit": {"method": Full(), "optimizer": AdamW8bit()},
    "full, checkpointed": {"method": Full(), "gradient_checkpointing": True},
    "lora": {"method": Lora(r=8)},
    "lora, checkpointed": {"method": Lora(r=8), "gradient_checkpointing": True},
    "lora, bfloat16": {"method": Lora(r=8), "precision": "bfloat16"},
    "lora, bfloat16, checkpointed": {"method": Lora(r=8), "precision": "bfloat16", "gradient_checkpointing": True},
    "lora, dropout": {"method": Lora(r=8, lora_dropout=0.1)},
    "lora of two layers": {"method": Lora(r=8, target_modules=("q_proj", "v_proj"))},
    "lora of two layers, dropout": {"method": Lora(r=8, lora_dropout=0.1, target_modules=("q_proj", "v_proj"))},
    "lora, dropout, bfloat16": {"method": Lora(r=8, lora_dropout=0.1), "precision": "bfloat16"},
    "full, bfloat16": {"method": Full(), "precision": "bfloat16"},
    "qlora": {"method": Qlora(r=8)},
    "lora, distilled": {"method": Lora(r=8), "objective": Distill(teacher="large", top_k=8)},
    "lora, dpo": {"method": Lora(r=8), "objective": Dpo()},
    "full, orpo": {"method": Full(), "objective": Orpo()},
    "lora, kto": {"method": Lora(r=8), "objective": Kto()},
    "lora, kto, checkpointed": {"method": Lora(r=8), "objective": Kto(), "gradient_checkpointing": True},
}


LARGE_FAMILIES = (Falcon, Bloom, Gpt2, GptNeox, Qwen2)
CASES = [(name, Llama, *loss) for name in PEAKS for loss in ((1000, 0.5), (4000, 1.0), (40000, 0.25))]
CASES += [
    (name, family, 1000, 0.5)
    for name in ("lora", "lora, bfloat16", "lora, dropout", "lora, dropout, bfloat16", "full, bfloat16")
    for family in LARGE_FAMILIES
]


@pytest.mark.parametrize(("name", "family", "vocabulary", "learnt"), CASES)
def test_the_peak_of_real_steps_is_the_estimate_by_the_byte(tmp_path, name, family, vocabulary, learnt):
    """What a GPU's allocator would count; the layers decide, or the loss, or the gradients of a large vocabulary."""
    architecture, rows, length = family(hidden_size=128, layers=6, heads=4), 4, 64
    torch.manual_seed(0)
    save_model(AutoModelForCausalLM.from_config(architecture.config(vocabulary, 0, 1), dtype=torch.float32), tmp_path)
    answers = 2 if PEAKS[name].get("objective", Supervised()).on_pairs else 1
    parameters = Parameters(**PEAKS[name], micro_batch=rows // answers, global_batch={"rows": rows // answers})
    ids = torch.randint(2, vocabulary, (rows, length))
    labels = ids.masked_fill(torch.arange(length) >= learnt * length, -100)
    with Peak() as tensors:
        model = speed_up(parameters.method.prepare(open_model(parameters, tmp_path)), parameters).train()
        install(model, 0).of_batch(torch.arange(rows)[:, None].expand(rows, length), torch.arange(length).expand(rows, length), flat=False)
        made = parameters.optimizer.make(model.named_parameters(), 1e-3, (0.9, 0.999), 0.1)
        step_of(model, made, parameters, ids, labels)
        tensors.forget()
        step_of(model, made, parameters, ids, labels)
    found = estimate(parameters, Matter(model.config.to_dict(), answers * length, supervised=learnt, answers=answers))
    assert found is not None and found.memory.total == pytest.approx(tensors.peak, rel=0.1), found.memory
