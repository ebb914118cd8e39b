"""How far the model has moved from its reference: the KL divergence, estimated from mismatched answers, independent of micro-batches."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from stages.models.answers import answer_logps
from stages.models.projection import predictions
from stages.tokens.files import Array
from stages.train.batching.padded import Padded
from stages.train.distributed.processes import Processes
from stages.train.loop.batches import Batches
from stages.train.loop.data import Rows
from stages.train.loop.division import Bound

_ROWS = 32


class Divergence:
    """The divergence on the mismatched ROWS, of which row i belongs to row i of the training."""

    def __init__(self, rows: Rows) -> None:
        assert rows.reference is not None
        self._batches = Batches(rows, Padded(), Bound())
        self._counts = rows.supervised()
        self._reference: Array = rows.reference.astype(np.float64)

    def estimate(
        self, processes: Processes, positions: range, micro_rows: int | None, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> float:
        """The mean log-ratio of model and reference over the rows at POSITIONS, in nats, at least 0; collective over all processes.

        It is one number for a GLOBAL batch, without a gradient and without dropout. Estimates of single micro-batches, as in TRL, scatter
        more and are clamped at 0 more often: the loss would depend on how a batch is divided.
        """
        processes.model.eval()
        total = 0.0
        with torch.no_grad(), autocast():
            for part in self._batches.micro_batches(positions, processes.share, Bound(min(micro_rows or _ROWS, _ROWS))):
                batch = self._batches.tensors(part).to(next(processes.model.parameters()).device)
                logits, targets = predictions(processes.model, batch.inputs, batch.labels, processes.forward)
                logps = answer_logps(logits, targets, self._counts[part].tolist())
                total += float(logps.double().sum()) - float(self._reference[part].sum())
        (total,) = processes.sums([total])
        return max(total / len(positions), 0.0)
