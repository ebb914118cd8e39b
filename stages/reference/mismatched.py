"""Mismatched couples: each answer of a token file after a prompt that it does not answer, from which KTO estimates a KL divergence."""

from pathlib import Path

import numpy as np

from engine.core.errors import UserError
from stages.tokens.files import Array, Tokens, TokenWriter


def write_mismatched(tokens: Tokens, path: Path, needed: bool) -> int:
    """Write the token file PATH: row i has the prompt of row i of TOKENS and the answer of its partner; returns how many are cut.

    The partner is the nearest row before with another prompt, where the last row comes before the first; in a pair, the same side of that
    pair. So TRL rotates the answers of a batch (trl/trainer/kto_trainer.py), but here the couples do not depend on batches, and equal
    prompts next to each other are passed over. A couple ends at the length of the longest row, so that it fits where the rows fit.
    If all rows have the same prompt, no answer is mismatched: raises UserError if the divergence is NEEDED, else writes no row. (TRL pairs
    each answer with its own prompt then and takes the result for the divergence, or refuses a batch of one row.)
    """
    sides = 2 if tokens.are_pairs else 1
    longest, cut = int(tokens.lengths.max(initial=0)), 0
    with TokenWriter(path) as writer:
        for unit, partner in enumerate(_partners(tokens, sides, needed)):
            for side in range(sides):
                prompt, _ = _divided(tokens, unit * sides + side)
                _, (answer, supervised) = _divided(tokens, int(partner) * sides + side)
                ids = np.concatenate([prompt, answer])
                mask = np.concatenate([np.zeros(len(prompt), np.uint8), supervised])
                cut += len(ids) > longest
                writer.write(ids[:longest], mask[:longest])
    return cut


def _partners(tokens: Tokens, sides: int, needed: bool) -> Array:
    """The row (or pair) whose answers stand after the prompt of each, int64 [units]; empty if all have the same prompt."""
    prompts = [_divided(tokens, row)[0].tobytes() for row in range(0, len(tokens), sides)]
    found = np.zeros(len(prompts), np.int64)
    if not prompts:
        return found
    last = next((unit for unit in reversed(range(len(prompts))) if prompts[unit] != prompts[0]), None)
    if last is None and not needed:
        return found[:0]
    if last is None:
        hint = 'add rows with other prompts, or set training.objective.loss = "apo_zero_unpaired", which needs no divergence'
        raise UserError("all train rows have the same prompt, so that no answer is mismatched and KTO's divergence unknown", hint=hint)
    found[0] = last
    for unit in range(1, len(prompts)):
        found[unit] = unit - 1 if prompts[unit] != prompts[unit - 1] else found[unit - 1]
    return found


def _divided(tokens: Tokens, row: int) -> tuple[Array, tuple[Array, Array]]:
    """The ids before the first supervised token of a row, and from there on the ids and the mask."""
    ids, supervised = tokens.row(row)
    first = int(np.argmax(supervised))
    return ids[:first], (ids[first:], supervised[first:])
