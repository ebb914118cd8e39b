"""Frozen layers in few bits: all of them, as bitsandbytes and transformers have them, and near the weights that they stand for."""

import subprocess
import sys
from pathlib import Path

import bitsandbytes
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, LlamaConfig

from stages.models.few_bits import dequantised
from stages.models.folders import load_model, save_model
from stages.models.quantisation import Quantisation, _dequantised, _replacement, quantisable, round_weights
from stages.train.methods import Qlora
from tests.stages.train.matrix import FAMILIES, IDS, answer, folder_of, prepared, train

KINDS = {
    "nf4": Quantisation(),
    "fp4": Quantisation(quant_type="fp4", double_quant=False),
    "8 bits": Quantisation(bits=8),
}


def quantised_layers(model):
    return {name for name, module in model.named_modules() if type(module).__name__ in ("Linear4bit", "Linear8bitLt")}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_but_the_output_layer_is_replaced(family, kind):
    wanted = set(quantisable(load_model(folder_of(family))))
    model = load_model(folder_of(family), quantisation=KINDS[kind])
    assert quantised_layers(model) == wanted and len(wanted) >= 4
    kept = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and name not in wanted}
    assert all(name == "lm_head" or name.endswith(".wo") for name in kept)
    # Half of a byte, or a byte, for each number.
    packed = sum(weight.nbytes for name, weight in model.named_parameters() if name.rpartition(".weight")[0] in wanted)
    plain = sum(layer.weight.numel() for layer in quantisable(load_model(folder_of(family))).values())
    assert packed == plain * KINDS[kind].bits // 8


@pytest.mark.parametrize(("kind", "most"), [("nf4", 0.2), ("fp4", 0.3), ("8 bits", 0.02)])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_near_those_of_the_whole_model(family, kind, most):
    whole, few = (answer(load_model(folder_of(family), quantisation=q)) for q in (None, KINDS[kind]))
    error = ((whole - few).norm() / whole.norm()).item()
    assert 0 < error < most


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_transformers_does_where_it_does_it(kind, tmp_path):
    """Rows are whole blocks here: with others, bitsandbytes dequantises wrongly on a processor with AVX-512."""
    q = KINDS[kind]
    theirs = BitsAndBytesConfig(
        load_in_4bit=q.bits == 4,
        load_in_8bit=q.bits == 8,
        bnb_4bit_quant_type=q.quant_type,
        bnb_4bit_use_double_quant=q.double_quant,
        bnb_4bit_compute_dtype=torch.float32,
    )
    sizes = {"vocab_size": 32, "bos_token_id": 0, "eos_token_id": 1}
    llama = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    for config in (LlamaConfig(**sizes, **llama), GPT2Config(**sizes, n_embd=64, n_layer=2, n_head=2)):
        folder = tmp_path / config.model_type
        torch.manual_seed(3)
        save_model(AutoModelForCausalLM.from_config(config), folder)
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True, quantization_config=theirs)
        ours = load_model(folder, quantisation=q)
        assert quantised_layers(ours) == quantised_layers(reference)
        # With gradients, since bitsandbytes repacks weights at their first use without, on processors with AVX-512 BF16.
        assert torch.equal(ours(IDS).logits, reference.eval()(IDS).logits)


def by_definition(layer):
    """The weights of a 4-bit layer: the value of each number's code times the constant of its block of the flat matrix."""
    state, codes = layer.weight.quant_state, layer.weight.data.flatten()
    constants = state.absmax
    if state.nested:
        constants = bitsandbytes.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    count = state.shape.numel()
    values = state.code[torch.stack([codes >> 4, codes & 15], 1).flatten()[:count].long()]
    return (values * constants.float().repeat_interleave(state.blocksize)[:count]).reshape(state.shape)


@settings(max_examples=100)
@given(st.integers(1, 70), st.integers(1, 200), st.sampled_from(["nf4", "fp4"]), st.booleans())
def test_weights_of_every_shape_are_dequantised_as_their_codes_say(outputs, inputs, quant_type, double):
    torch.manual_seed(outputs * 1000 + inputs)
    layer = _replacement(torch.nn.Linear(inputs, outputs), Quantisation(quant_type=quant_type, double_quant=double)).to("cpu")
    assert torch.equal(dequantised(layer.weight), by_definition(layer))


@pytest.mark.parametrize("shape", [(5, 7), (16, 16), (33, 96), (64, 128)], ids=str)
def test_gradients_are_those_of_a_plain_layer_with_the_dequantised_weights(shape):
    torch.manual_seed(2)
    outputs, inputs = shape
    layer = _replacement(torch.nn.Linear(inputs, outputs), Quantisation()).to("cpu")
    x = torch.randn(2, 3, inputs)
    one, other = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    factors = torch.randn(2, 3, outputs)
    (layer(one) * factors).sum().backward()
    (torch.nn.functional.linear(other, by_definition(layer), layer.bias) * factors).sum().backward()
    assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_transformers_leaves_falcons_layers_as_they_are():
    """Why the layers are replaced by ourselves; where this fails, transformers has learnt it."""
    config = BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained(folder_of("Falcon (7B's layer)"), local_files_only=True, quantization_config=config)
    assert not quantised_layers(model)


SHAPES = [(16, 64), (24, 48), (32, 64), (64, 128), (96, 192)]
"""Outputs and inputs of layers: the packing refuses the first two (it needs outputs by 32, inputs by 64), and takes the others."""


@pytest.fixture(params=[True, False], ids=["the processor says it has AVX-512 BF16", "it says it has not"])
def processor(request, monkeypatch):
    """What bitsandbytes believes of the processor; a packing that is begun all the same is an error."""
    from bitsandbytes.nn import modules

    def packed(*arguments):
        raise AssertionError("the weights were packed for one sort of processor")

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: request.param)
    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", packed)


def stored(layer):
    """All that a 4-bit layer keeps of its weights, by name."""
    return {name: value.clone() for name, value in layer.state_dict().items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("quantisation", [Quantisation(), Quantisation(quant_type="fp4", double_quant=False)], ids=["nf4", "fp4"])
def test_a_layer_multiplies_by_the_very_numbers_that_its_bits_stand_for(processor, quantisation, shape, bias):
    torch.manual_seed(1)
    outputs, inputs = shape
    layer = _replacement(torch.nn.Linear(inputs, outputs, bias=bias), quantisation).to("cpu")
    before, x = stored(layer), torch.randn(3, 5, inputs)
    expected = torch.nn.functional.linear(x, _dequantised(layer, quantisation), layer.bias)
    layer.train()
    learning = layer(x.clone().requires_grad_(True))
    learning.sum().backward()
    layer.eval()
    for asked in (torch.no_grad, torch.inference_mode):
        with asked():
            assert torch.equal(layer(x), expected)
            assert torch.equal(layer(x[:1, :1]), torch.nn.functional.linear(x[:1, :1], _dequantised(layer, quantisation), layer.bias))
    assert torch.equal(learning.detach(), expected)
    after = stored(layer)
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_with_validations_leaves_the_frozen_weights_as_they_were(processor, family):
    """Validations ask the model without gradients in the midst of a training, where the packing would begin."""
    model = prepared(family, Qlora(r=4))
    frozen = {name: module for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    before = {name: stored(module) for name, module in frozen.items()}
    for _ in range(2):
        train(model, steps=1)
        answer(model)
    assert frozen
    for name, module in frozen.items():
        assert all(torch.equal(stored(module)[key], value) for key, value in before[name].items()), name


@pytest.mark.parametrize("family", ["Falcon (7B's layer)", "Llama", "T5"])
def test_logits_are_those_of_the_dequantised_weights(processor, family):
    rounded = load_model(folder_of(family))
    round_weights(rounded, Quantisation())
    assert torch.equal(answer(load_model(folder_of(family), quantisation=Quantisation())), answer(rounded))


@pytest.mark.slow
@pytest.mark.parametrize("answer", [True, False])
def test_bitsandbytes_says_nothing_at_its_import_whatever_the_processor(answer):
    """On a processor with AVX-512 BF16 it would warn of kernels on the hub that this project neither needs nor wants."""
    code = f"""
from tests.support.avx512 import force
force({answer})
from stages.models.folders import prepare_process
prepare_process(1)
import bitsandbytes
assert bitsandbytes.functional.has_avx512bf16() is {answer}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
