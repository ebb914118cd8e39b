"""Compares the logits of two models on rows of the tasks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError
from stages.chat.questions import Questions
from stages.rows.rows import Row, read_rows

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = 32
"""Number of last positions per row whose logits are compared; bounds memory."""


@dataclass(frozen=True)
class Probe:
    """Token ids of one row: prompt and answer."""

    question: list[int]
    answer: list[int]


def read_probes(splits: Sequence[Path], rows: int, asking: Questions) -> list[Probe]:
    """Probes of at most ROWS rows of each of SPLITS (folders with a task's rows), chosen by content hash; raises UserError if none is left.

    Uses test rows; if a task has none, its validation rows, else its train rows: the models should agree on all rows, so trained rows
    serve the comparison as well.
    """
    probes = []
    for folder in splits:
        for split in ("test", "validation", "train"):
            usable = [row for row in read_rows(folder / f"{split}.jsonl", unanswered=True) if row.is_well_formed()]
            of_task = [found for row in sorted(usable, key=_hash)[:rows] if (found := _probe(row, asking))]
            if of_task:
                break
        probes += of_task
    if not probes:
        raise UserError("no row of any task can be rendered, so the merged model cannot be verified", hint="give a task more rows")
    return probes


def _hash(row: Row) -> bytes:
    return hashlib.sha256(f"{row.id}\n{row.asked}".encode()).digest()


def _probe(row: Row, asking: Questions) -> Probe | None:
    answer = asking.references([row])[0] if row.answered else []
    found = Probe(asking.ids([row])[0], answer)
    return found if found.question or found.answer else None


def logits(model: Any, probes: Sequence[Probe], longest: int | None) -> "list[Tensor]":
    """Float32 logits [positions, vocabulary] of the last positions of each probe; probes longer than LONGEST are truncated."""
    import torch

    with torch.inference_mode():
        return [_ask(model, _inputs(model.config, probe, longest)) for probe in probes]


def _ask(model: Any, inputs: "dict[str, Tensor]") -> "Tensor":
    # A quantised model is on the GPU, if there is one.
    device = next(model.parameters()).device
    found: Tensor = model(**{name: ids.to(device) for name, ids in inputs.items()}).logits
    return found[0, -POSITIONS:].float().cpu()


def _inputs(config: Any, probe: Probe, longest: int | None) -> "dict[str, Tensor]":
    import torch

    if not config.is_encoder_decoder:
        return {"input_ids": torch.tensor([[*probe.question, *probe.answer][:longest]])}
    answer = [config.decoder_start_token_id, *probe.answer]
    return {"input_ids": torch.tensor([probe.question[:longest]]), "decoder_input_ids": torch.tensor([answer[:longest]])}


def difference(ours: "Sequence[Tensor]", theirs: "Sequence[Tensor]") -> float:
    """Largest absolute difference of two logits, relative to the largest of THEIRS; infinite if any is NaN or infinite."""
    import torch

    apart = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    scale = max(float(b.abs().max()) for b in theirs)
    whole = all(bool(torch.isfinite(tensor).all()) for tensor in (*ours, *theirs))
    return apart / scale if whole and scale else (0.0 if whole and not apart else float("inf"))
