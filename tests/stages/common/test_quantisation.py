"""Frozen layers in few bits: all of them, as bitsandbytes and transformers have them, and near the weights that they stand for."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from stages.common.models import load_model
from stages.common.quantisation import Quantisation, quantisable
from tests.stages.train.matrix import FAMILIES, IDS, answer, folder_of

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
def test_it_is_what_transformers_does_where_it_does_it(kind):
    q = KINDS[kind]
    theirs = BitsAndBytesConfig(
        load_in_4bit=q.bits == 4,
        load_in_8bit=q.bits == 8,
        bnb_4bit_quant_type=q.quant_type,
        bnb_4bit_use_double_quant=q.double_quant,
        bnb_4bit_compute_dtype=torch.float32,
    )
    for family in ("Llama", "GPT-2"):
        reference = AutoModelForCausalLM.from_pretrained(
            folder_of(family), dtype=torch.float32, local_files_only=True, quantization_config=theirs
        )
        ours = load_model(folder_of(family), quantisation=q)
        assert quantised_layers(ours) == quantised_layers(reference)
        with torch.no_grad():
            assert torch.equal(ours(IDS).logits, reference.eval()(IDS).logits)


def test_transformers_leaves_falcons_layers_as_they_are():
    """Why the layers are replaced by ourselves; where this fails, transformers has learnt it."""
    config = BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained(folder_of("Falcon (7B's layer)"), local_files_only=True, quantization_config=config)
    assert not quantised_layers(model)
