"""Batched generation whose answers do not depend on the batch."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from stages.models.out_of_memory import is_out_of_memory, release

TokenIds = list[int]


def no_processors(rows: Sequence[int]) -> list[LogitsProcessor]:
    """Greedy decoding: no processors."""
    return []


def generate(
    model: Any,
    prompts: Sequence[TokenIds],
    stops: Sequence[int],
    max_new_tokens: int,
    batch_rows: int,
    done: Callable[[int], None] = lambda rows: None,
    processors: Callable[[Sequence[int]], list[LogitsProcessor]] = no_processors,
    halves: bool = True,
) -> list[TokenIds]:
    """New token ids after each of PROMPTS (none empty): at most MAX_NEW_TOKENS, up to and including the first of STOPS.

    Prompts of similar length share a batch to save padding; answers do not depend on the batch, except for ties between tokens within
    rounding. If memory is short and HALVES, a batch is halved, and so are the later ones. DONE is called with the number of rows of each
    finished batch; PROCESSORS returns the logits processors for a batch, given the indices of its prompts.
    """
    # Only our settings: a published model's generation config may sample, or penalise repetition.
    greedy = {"do_sample": False, "num_beams": 1}
    # For an encoder-decoder, peft delegates `generate` to the base model, which reads its own generation config.
    below = model.get_base_model() if hasattr(model, "get_base_model") else model
    start_of_answer = getattr(below.generation_config, "decoder_start_token_id", None)
    if start_of_answer is None:
        start_of_answer = getattr(below.config, "decoder_start_token_id", None)
    ours = GenerationConfig(
        **greedy, eos_token_id=list(stops), pad_token_id=stops[0], max_new_tokens=max_new_tokens, decoder_start_token_id=start_of_answer
    )
    model.generation_config = below.generation_config = ours
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    answers: list[TokenIds] = [[] for _ in prompts]
    waiting = _batches(order, prompts, batch_rows, _pads(model))[::-1]
    while waiting:
        batch = waiting.pop()
        if len(batch) > batch_rows:
            waiting += [batch[batch_rows:], batch[:batch_rows]]
            continue
        try:
            made = _generate_batch(model, [prompts[number] for number in batch], stops, LogitsProcessorList(processors(batch)))
        except (MemoryError, RuntimeError) as error:
            if not halves or len(batch) == 1 or not is_out_of_memory(error):
                raise
            batch_rows = len(batch) // 2
            print(f"out of memory with a batch of {len(batch)} answers; going on with {batch_rows}", file=sys.stderr)
            made = None
        if made is None:
            # Outside of the handler: the traceback's frames hold the tensors that filled the memory.
            release()
            waiting.append(batch)
            continue
        for number, answer in zip(batch, made, strict=True):
            answers[number] = answer
        done(len(batch))
    return answers


def _pads(model: Any) -> bool:
    """Whether rows of MODEL may be padded: padding would stand between the virtual tokens of a prompt-learning adapter and the prompt, and
    peft (0.21) counts it as positions."""
    return not getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)


def _batches(order: Sequence[int], prompts: Sequence[TokenIds], batch_rows: int, pads: bool) -> list[list[int]]:
    """ORDER, sorted by length, in batches of at most BATCH_ROWS; without padding, only prompts of equal length share one."""
    batches: list[list[int]] = []
    for number in order:
        if not batches or len(batches[-1]) == batch_rows or not (pads or len(prompts[batches[-1][0]]) == len(prompts[number])):
            batches.append([])
        batches[-1].append(number)
    return batches


def _generate_batch(model: Any, prompts: list[TokenIds], stops: Sequence[int], processors: LogitsProcessorList) -> list[TokenIds]:
    """New token ids of a batch, padded on the left, so that generation continues at the last column; padding is masked, so any id works."""
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.tensor([[stops[0]] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    with torch.inference_mode():
        output = model.generate(input_ids=input_ids, attention_mask=mask, logits_processor=processors)
    # A decoder's output contains the prompt; an encoder-decoder's begins with the decoder start token.
    return [_until(row, stops) for row in output[:, 1 if model.config.is_encoder_decoder else width :].tolist()]


def _until(ids: TokenIds, stops: Sequence[int]) -> TokenIds:
    """IDS up to and including the first of STOPS; all of them if there is none."""
    return next((ids[: number + 1] for number, token in enumerate(ids) if token in stops), ids)
