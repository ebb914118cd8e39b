"""Packed rows do not see each other: changing one changes nothing that a model says of its neighbours, whatever the attention."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from engine.core.errors import UserError
from stages.initialize.architectures import Bloom, Falcon, Gpt2, Llama
from stages.train.loop.isolation import BLOCKS, Arrangement, _packed_logits, isolate, leaks

SIZES: dict[str, Any] = {"hidden_size": 32, "layers": 2, "heads": 4, "max_length": 4096}
MODELS = {
    "llama": Llama(kv_heads=2, **SIZES),
    "gpt2": Gpt2(**SIZES),
    "falcon": Falcon(kv_heads=2, **SIZES),
    "falcon-7b": Falcon(new_decoder_architecture=False, **SIZES),
}


def model_of(architecture, attention="sdpa", **changes):
    torch.manual_seed(0)
    config = architecture.config(100, 0, 1)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(100, (length,), generator=generator) for length in lengths]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_perturbing_one_row_changes_no_logit_of_its_neighbours(name, attention):
    model = model_of(MODELS[name], attention)
    arrangement = isolate(model)
    packed = rows(9, 5, 14, 1, 7)
    with torch.no_grad():
        before = _packed_logits(model, packed, arrangement)
        for changed in range(len(packed)):
            others = [(row + 1) % 100 if number == changed else row for number, row in enumerate(packed)]
            after = _packed_logits(model, others, arrangement)
            assert (after[changed] - before[changed]).abs().max() > 1e-3
            assert all(torch.equal(after[n], before[n]) for n in range(len(packed)) if n != changed)
        alone = [model(input_ids=row[None]).logits[0] for row in packed]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, alone, strict=True))


@pytest.mark.long
def test_flex_attention_keeps_rows_apart_or_says_why_it_cannot_run_here():
    model = model_of(MODELS["llama"], "flex_attention")
    try:
        with torch.no_grad():
            model(input_ids=rows(16)[0][None])
    except Exception as error:  # the compiler raises its own kinds, and whether there is one at all depends on the machine
        pytest.skip(f"flex attention does not run here: {str(error).splitlines()[0][:200]}")
    assert isolate(model) == Arrangement(flat=True)
    assert model.config._attn_implementation == "flex_attention"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length kernels need a GPU")
def test_variable_length_kernels_keep_rows_apart():
    model = model_of(MODELS["llama"]).to("cuda", torch.bfloat16)
    assert isolate(model).borders


def test_a_plain_batch_leaks_and_the_check_says_so():
    falcon = model_of(MODELS["falcon"])
    assert leaks(falcon, Arrangement(flat=True)) == "the logits of a row depend on its neighbours"
    assert leaks(falcon, Arrangement(flat=True, mask="bool")) is None


def test_rows_apart_at_wrong_positions_are_found_too():
    class Late(Arrangement):
        def inputs(self, position_ids: torch.Tensor) -> dict[str, Any]:
            return {**super().inputs(position_ids), "position_ids": torch.arange(position_ids.shape[1])[None] + 50}

    # Learned positions: rotary ones only know distances, and would rightly pass.
    assert (
        leaks(model_of(MODELS["gpt2"]), Late(flat=True, mask="bool"))
        == "the logits of a concatenated row differ from those of the row alone"
    )


@pytest.mark.parametrize("architecture", [Bloom(**SIZES), MODELS["falcon-7b"]], ids=["bloom", "falcon-alibi"])
def test_alibi_cannot_be_packed_and_that_is_said(architecture):
    model = model_of(architecture, "eager", alibi=True)
    with pytest.raises(UserError, match=r"cannot separate packed rows: the logits of a row depend on its neighbours") as caught:
        isolate(model)
    assert "padded" in caught.value.problems[0].hint
    assert model.config._attn_implementation == "eager" and not model.training


class Largest(TorchDispatchMode):
    """Remembers the numbers in the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_memory_is_linear_in_the_tokens_of_a_bin(name):
    model, found = model_of(MODELS[name]), []
    arrangement = isolate(model)
    for count in (16, 32):
        with torch.no_grad(), Largest() as largest:
            _packed_logits(model, rows(*[64] * count), arrangement)
        found.append(largest.elements)
        assert largest.elements < (64 * count) ** 2 / 4, "no tensor of all pairs of tokens"
    assert found[1] == pytest.approx(2 * found[0], rel=0.01)


def test_padded_rows_are_computed_as_before_once_attention_is_by_rows():
    model = model_of(MODELS["llama"])
    ids, mask = torch.stack(rows(8, 8)), torch.ones(2, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        assert isolate(model).borders and model.config._attn_implementation == BLOCKS
        after = model(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(before[0], after[0], atol=1e-5) and torch.allclose(before[1, :5], after[1, :5], atol=1e-5)
