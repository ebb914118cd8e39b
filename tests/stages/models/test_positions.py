"""How far a model's positions reach, told from its configuration: what published configurations say, and those that are made here."""

from typing import get_args

import pytest

from stages.initialize.architectures import Architecture
from stages.models.positions import ENDLESS, positions

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("config", "reach"),
    [
        ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 1024}, 1024),
        ({"model_type": "llama", "max_position_embeddings": 4096}, 4096),
        ({"model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({"model_type": "llama", "max_position_embeddings": 131072, "rope_parameters": LLAMA3}, 131072),
        ({"model_type": "qwen2", "max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),
        ({"model_type": "llama", "max_position_embeddings": 64, "rope_parameters": {"rope_type": "default"}}, 64),
        ({"model_type": "falcon", "max_position_embeddings": 2048, "alibi": False}, 2048),
        ({"model_type": "falcon", "max_position_embeddings": 2048, "alibi": True}, None),
        ({"model_type": "bloom", "seq_length": 2048}, None),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "mamba"}, None),
        ({"max_position_embeddings": "many"}, None),
    ],
)
def test_what_published_configurations_say(config, reach):
    found = positions(config)
    assert (found and found[1]) == reach
    assert found is None or config[found[0]] <= reach, "the key that is named is the one that bounds"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", get_args(get_args(Architecture)[0]), ids=lambda member: member.__name__)
def test_what_the_spec_says_of_an_architecture_is_what_its_configuration_says(architecture):
    made = architecture(hidden_size=32, layers=1, heads=2, max_length=48)
    found = positions(made.config(300, 0, 1).to_dict())
    assert (found and found[1]) == (None if made.kind in ENDLESS else 48)
