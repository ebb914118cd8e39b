"""An adapter that is trained further begins where it ended, on the same base."""

import pytest
import torch

from engine.core.errors import UserError
from stages.train.methods import Ia3, Lora
from stages.train.methods.saved import refuse_other
from tests.stages.train.matrix import METHODS, VARIANTS, answer, loaded, prepared, train

CONTINUED = {name: method for name, method in (METHODS | VARIANTS).items() if method.makes_adapter}


@pytest.mark.parametrize("name", CONTINUED)
def test_it_goes_on_from_what_was_saved(tmp_path, name):
    method = CONTINUED[name]
    rate = 0.3 if isinstance(method, Ia3) else 0.03
    first = prepared("Qwen2", method)
    before = train(first, learning_rate=rate)
    method.save(first, tmp_path)
    then = method.as_saved()
    further = then.prepare(loaded("Qwen2", method), tmp_path)
    torch.testing.assert_close(answer(further), answer(first), rtol=1e-4, atol=1e-4)
    after = train(further, learning_rate=rate / 10)
    assert after[0] < before[0] and after[-1] < after[0]
    (tmp_path / "further").mkdir()
    then.save(further, tmp_path / "further")
    torch.testing.assert_close(answer(then.prepare(loaded("Qwen2", method), tmp_path / "further")), answer(further), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("other", ["lora, DoRA", "ia3", "prompt_tuning"])
def test_an_adapter_of_another_form_is_refused(tmp_path, other):
    METHODS[other].save(prepared("Qwen2", METHODS[other]), tmp_path)
    with pytest.raises(UserError, match="adapter"):
        METHODS["lora"].prepare(loaded("Qwen2", METHODS["lora"]), tmp_path)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    METHODS["lora"].save(prepared("Llama", METHODS["lora"]), tmp_path)
    with pytest.raises(UserError, match="adapter"):
        METHODS["lora"].prepare(loaded("Bloom", METHODS["lora"]), tmp_path)


@pytest.mark.parametrize("name", CONTINUED)
def test_its_configuration_says_which_method_continues_it(tmp_path, name):
    method = CONTINUED[name]
    method.save(prepared("Qwen2", method), tmp_path)
    refuse_other(method.as_saved(), tmp_path)


def test_another_scale_is_refused_although_all_tensors_fit(tmp_path):
    METHODS["lora"].save(prepared("Qwen2", METHODS["lora"]), tmp_path)
    with pytest.raises(UserError, match="was trained with lora_alpha = 32"):
        refuse_other(Lora(r=4, lora_alpha=8), tmp_path)
