"""A model with scaled rotary positions is the same weights with another configuration, which transformers takes as it is meant."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.core.errors import UserError
from stages.models.folders import load_model, longest_sequence
from stages.rescale import Parameters
from stages.rescale.body import run
from stages.rescale.scalings import Dynamic, Linear, Llama3, LongRope, Yarn
from tests.stages.generate.tiny_models import llama, t5
from tests.stages.initialize.tiny import make_job, make_model

POSITIONS, HALF = 64, (1.0, 1.0, 1.0, 1.0)
SCALINGS = {
    "linear": Linear(factor=2.0),
    "dynamic": Dynamic(factor=4.0),
    "yarn": Yarn(factor=4.0),
    "llama3": Llama3(factor=8.0),
    "longrope": LongRope(factor=2.0, short_factor=HALF, long_factor=(1.0, 2.0, 3.0, 4.0)),
}


def rescale(folder, model, scaling):
    job = make_job(folder / "job", {"model": model})
    return run(Parameters(rope_scaling=scaling), job), job.output


@pytest.mark.parametrize("kind", SCALINGS)
def test_the_context_is_as_many_times_longer_and_transformers_computes_the_scaling(tmp_path, kind):
    base, scaling = llama(tmp_path / "base", positions=POSITIONS), SCALINGS[kind]
    metrics, written = rescale(tmp_path, base, scaling)
    longest = round(POSITIONS * scaling.factor)
    assert metrics == {"positions_before": POSITIONS, "positions": longest}
    model = load_model(written)
    assert longest_sequence(model.config) == longest
    # The second implementation: transformers' own, given the values in the form of its documentation.
    config = AutoConfig.from_pretrained(base)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in scaling.model_dump(exclude={"kind"}).items()}
    original = {"original_max_position_embeddings": POSITIONS} if scaling.states_original else {}
    given = {name: value for name, value in values.items() if value is not None} | original
    config.rope_parameters = {"rope_type": kind, "rope_theta": 10000.0, **given}
    config.max_position_embeddings = longest if original else POSITIONS
    theirs = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32, attn_implementation="sdpa")
    ids = torch.arange(longest)[None] % 250
    with torch.inference_mode():
        ours, wanted, before = (one(input_ids=ids).logits for one in (model, theirs, load_model(base)))
    assert torch.equal(ours, wanted) and not torch.allclose(ours, before, atol=1e-3)


def test_files_other_than_the_configuration_stay_and_code_and_pickles_are_left(tmp_path):
    base = llama(tmp_path / "base")
    (base / "modeling.py").write_text("raise SystemExit")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    _, written = rescale(tmp_path, base, SCALINGS["yarn"])
    assert {path.name for path in written.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert (written / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_a_scaling_that_the_model_has_is_replaced_and_counts_from_the_original_context(tmp_path):
    _, once = rescale(tmp_path / "once", llama(tmp_path / "base", positions=POSITIONS), SCALINGS["yarn"])
    metrics, _ = rescale(tmp_path / "twice", once, Linear(factor=2.0))
    assert metrics == {"positions_before": 4 * POSITIONS, "positions": 2 * POSITIONS}


def test_the_model_s_own_base_of_frequencies_stays(tmp_path):
    base = llama(tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"rope_theta": 5e5}
    (base / "config.json").write_text(json.dumps(config))
    _, written = rescale(tmp_path, base, SCALINGS["dynamic"])
    assert load_model(written).config.rope_parameters["rope_theta"] == 5e5


@pytest.mark.parametrize("sort", ["gpt2", "t5", "bloom"])
def test_a_model_without_rotary_positions_is_refused(tmp_path, sort):
    folder = t5(tmp_path / "base") if sort == "t5" else make_model(tmp_path / "base", sort)
    with pytest.raises(UserError, match=f"model.rope_scaling does not fit .*: {sort} has no rotary positions"):
        rescale(tmp_path, folder, SCALINGS["linear"])


def test_a_list_of_factors_of_another_length_is_refused(tmp_path):
    scaling = LongRope(factor=2.0, short_factor=HALF, long_factor=HALF[:3])
    with pytest.raises(UserError, match="long_factor needs 4 values, half the rotary dimensions of a head, got 3"):
        rescale(tmp_path, llama(tmp_path / "base"), scaling)
