"""Greedy generation in batches: the most likely token at each step, so that the same model gives the same answers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

TokenIds = list[int]


def generate(
    model: Any, prompts: Sequence[TokenIds], eos: int, max_new_tokens: int, batch_rows: int, done: Callable[[int], None] = lambda rows: None
) -> list[TokenIds]:
    """The new tokens after each of PROMPTS (none empty), up to MAX_NEW_TOKENS, the end token included where the model gives it.

    Prompts of similar length share a batch, as less padding is computed then; an answer does not depend on its neighbours, but for ties
    of rounding between two tokens. DONE is told the rows of each finished batch.
    """
    # Ours alone: a published model's own configuration may sample, or punish repetition.
    greedy = {"do_sample": False, "num_beams": 1}
    model.generation_config = GenerationConfig(**greedy, eos_token_id=eos, pad_token_id=eos, max_new_tokens=max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    answers: list[TokenIds] = [[] for _ in prompts]
    for start in range(0, len(order), batch_rows):
        batch = order[start : start + batch_rows]
        for number, answer in zip(batch, _generate_batch(model, [prompts[number] for number in batch], eos), strict=True):
            answers[number] = answer
        done(len(batch))
    return answers


def _generate_batch(model: Any, prompts: list[TokenIds], eos: int) -> list[TokenIds]:
    """Padding stands on the left, so that every row's next token is the last one; it is masked, hence any id will do."""
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.tensor([[eos] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    with torch.inference_mode():
        output = model.generate(input_ids=input_ids, attention_mask=mask)
    return [_until(row, eos) for row in output[:, width:].tolist()]


def _until(ids: TokenIds, eos: int) -> TokenIds:
    """IDS up to the end token, itself included; all of them where there is none."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids
