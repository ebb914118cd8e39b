"""Sizes that make no model are refused when they are read."""

import pytest
from pydantic import ValidationError

from stages.initialize.architectures import T5, Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3


@pytest.mark.parametrize("architecture", [Bloom, Falcon, Gpt2, GptNeox, Llama, Qwen2, T5])
def test_heads_divide_the_width(architecture):
    with pytest.raises(ValidationError, match="must be divisible by heads"):
        architecture(hidden_size=30, heads=4)


@pytest.mark.parametrize("architecture", [Falcon, Llama, Mistral, Qwen2, Qwen3])
def test_rotary_positions_need_even_heads(architecture):
    with pytest.raises(ValidationError, match="even head dimension"):
        architecture(hidden_size=12, heads=4)


@pytest.mark.parametrize("architecture", [Falcon, Llama, Mistral, Qwen2, Qwen3])
def test_key_value_heads_divide_the_heads(architecture):
    with pytest.raises(ValidationError, match="must be divisible by kv_heads"):
        architecture(heads=4, kv_heads=3)
    assert architecture(heads=4, kv_heads=2).kv_heads == 2


def test_older_falcon_refuses_key_value_heads_that_it_would_ignore():
    with pytest.raises(ValidationError, match="new_decoder_architecture"):
        Falcon(heads=4, kv_heads=2, new_decoder_architecture=False)


@pytest.mark.parametrize("architecture", [Bloom, Falcon, Gpt2, GptNeox, Llama, Mistral, Qwen2, Qwen3, T5])
def test_no_dropout_is_hidden_in_the_defaults(architecture):
    values = architecture().config(300, 0, 1).to_dict()
    dropouts = {
        key: value
        for key, value in values.items()
        if key.endswith(("_dropout", "_pdrop", "dropout_rate")) and not key.startswith("summary")
    }
    assert dropouts and not any(dropouts.values())


@pytest.mark.parametrize(
    ("new", "kv_heads", "rows"), [(True, 2, (4 + 2 * 2) * 8), (True, None, (4 + 2 * 4) * 8), (False, None, (4 + 2) * 8)]
)
def test_falcon_shares_key_value_heads_as_asked(new, kv_heads, rows):
    from transformers import AutoModelForCausalLM

    falcon = Falcon(hidden_size=32, layers=1, heads=4, kv_heads=kv_heads, new_decoder_architecture=new)
    model = AutoModelForCausalLM.from_config(falcon.config(300, 0, 1))
    assert model.transformer.h[0].self_attention.query_key_value.weight.shape == (rows, 32)


@pytest.mark.parametrize(("share", "width"), [(0.25, 4), (0.25, 8), (0.3, 8), (0.5, 8), (1.0, 6)])
def test_neox_turns_pairs_of_a_part_of_each_head(share, width):
    turned = int(share * width)
    if turned < 2 or turned % 2:
        with pytest.raises(ValidationError, match="need an even dimension"):
            GptNeox(hidden_size=width * 2, heads=2, rotary_pct=share)
    else:
        assert GptNeox(hidden_size=width * 2, heads=2, rotary_pct=share).config(300, 0, 1).rope_parameters["partial_rotary_factor"] == share


def test_mistrals_window_hides_nothing_of_what_the_model_is_made_for():
    assert Mistral(max_length=77).config(300, 0, 1).sliding_window == 77
