"""Greedy answers do not depend on the batch, and are those of a loop without cache, padding or library."""

import pytest
import torch

from stages.models import generation
from stages.models.folders import load_model, load_tokenizer
from stages.models.generation import generate
from stages.train.methods import PrefixTuning, PromptTuning
from tests.stages.initialize.tiny import ARCHITECTURES, make_model

PROMPTS = [[40], [41, 42, 43], [50, 60, 70, 80, 90, 100, 110], [44, 45], [30, 31, 32, 33]]


def plain(model, prompt, eos, limit):
    """One row, whole sequence computed anew for each token."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + limit:
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == eos:
                break
    return ids[len(prompt) :]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp(request.param), request.param, initializer_range=0.3))


@pytest.mark.parametrize("batch_rows", [1, 2, 64])
def test_answers_are_those_of_a_plain_loop(model, batch_rows):
    free = plain(model, PROMPTS[2], -1, 12)
    eos = free[3]  # so that some row really ends
    answers = generate(model, PROMPTS, (eos,), 12, batch_rows)
    assert answers == [plain(model, prompt, eos, 12) for prompt in PROMPTS]
    assert answers[2][-1] == eos and len(answers[2]) == free.index(eos) + 1
    assert max(map(len, answers)) <= 12


@pytest.mark.parametrize("method", [PromptTuning(num_virtual_tokens=3), PrefixTuning(num_virtual_tokens=3)], ids=lambda one: one.kind)
@pytest.mark.parametrize("batch_rows", [1, 64])
def test_virtual_tokens_stand_directly_before_each_prompt(tmp_path, method, batch_rows):
    """In any batch: padding in between would move them."""
    torch.manual_seed(1)
    model = method.prepare(load_model(make_model(tmp_path, "llama", initializer_range=0.3))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(std=2.0)
    assert generate(model, PROMPTS, (0,), 8, batch_rows) == [plain(model, prompt, 0, 8) for prompt in PROMPTS]


def test_a_published_generation_configuration_has_no_say(tmp_path):
    model = load_model(make_model(tmp_path, initializer_range=0.3))
    expected = generate(model, PROMPTS, (0,), 8, 64)
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0, max_new_tokens=1)
    assert generate(model, PROMPTS, (0,), 8, 64) == expected


def test_finished_rows_are_reported(parrot):
    seen = []
    generate(load_model(parrot), PROMPTS, (load_tokenizer(parrot).eos,), 2, 2, seen.append)
    assert seen == [2, 2, 1]


def test_nothing_to_ask_gives_nothing(parrot):
    assert generate(load_model(parrot), [], (0,), 2, 2) == []


def test_any_of_several_tokens_ends_an_answer(model):
    free = plain(model, PROMPTS[2], -1, 12)
    stops = (free[5], free[2])
    (answer,) = generate(model, PROMPTS[2:3], stops, 12, 1)
    assert answer == free[: min(free.index(stop) for stop in stops) + 1]


def test_a_batch_that_runs_out_of_memory_is_halved_and_answers_stay(model, monkeypatch, capsys):
    expected = generate(model, PROMPTS, (0,), 8, len(PROMPTS))
    original, sizes, finished = generation._generate_batch, [], []

    def with_memory_for_two(model, prompts, *others):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes")
        return original(model, prompts, *others)

    monkeypatch.setattr(generation, "_generate_batch", with_memory_for_two)
    assert generate(model, PROMPTS, (0,), 8, len(PROMPTS), finished.append) == expected
    assert sum(finished) == len(PROMPTS) and max(finished) <= 2 < max(sizes)
    assert f"out of memory with a batch of {len(PROMPTS)} answers" in capsys.readouterr().err
    monkeypatch.setattr(generation, "_generate_batch", out_of_memory)
    with pytest.raises(RuntimeError, match="can't allocate"):
        generate(model, PROMPTS, (0,), 8, len(PROMPTS))


def out_of_memory(*arguments):
    raise RuntimeError("can't allocate memory")
