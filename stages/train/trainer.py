"""transformers' Trainer, held to the mixture's order and to a loss that does not depend on how a global batch is split."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from stages.train import Parameters
from stages.train.batches import Batches
from stages.train.data import Rows, global_batches
from stages.train.division import Bound, Share
from stages.train.isolation import PADDED, isolate
from stages.train.record import Point, Record
from stages.train.schedule import factor


def train(model: Any, rows: Rows, parameters: Parameters, scratch: Path) -> list[Point]:
    """Train MODEL in place on ROWS, one pass, and return each step's numbers; raises UserError where the training diverges."""
    arrangement = isolate(model) if parameters.batching.flat else PADDED
    batches = Batches(rows, parameters.batching, Bound(parameters.micro_batch), arrangement)
    steps = global_batches(rows, parameters.global_batch.rows)
    micro = [batches.micro_batches(step, Share()) for step in steps]
    record = Record(_step_tokens(rows, steps))
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    trainer = OrderedTrainer(parameters, model=model, args=arguments(parameters, scratch), train_dataset=rows, callbacks=[record])
    trainer.batches, trainer.micro_batches = batches, [positions for step in micro for positions in step]
    # Dropout continues from the seed, however much of the random numbers the trainer's own setup takes.
    torch.manual_seed(parameters.seed)
    trainer.train()
    # The trainer turned the cache off for its own sake; a saved model should answer as fast as before.
    if config is not None and use_cache is not None:
        config.use_cache = use_cache
    model.eval()
    return record.curve


def arguments(parameters: Parameters, scratch: Path) -> TrainingArguments:
    """The trainer's arguments: no report, no checkpoint, every step logged to our record."""
    global_rows = parameters.global_batch.rows
    micro_rows = min(parameters.micro_batch or global_rows, global_rows)
    return TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=micro_rows,
        # A global batch's last micro-batch may be smaller, but every global batch but the last has this many; the trainer itself
        # counts on a last step with fewer, so ragged batches need no override of its loop.
        gradient_accumulation_steps=-(-global_rows // micro_rows),
        num_train_epochs=1,
        learning_rate=parameters.learning_rate,
        adam_beta1=parameters.betas[0],
        adam_beta2=parameters.betas[1],
        weight_decay=parameters.weight_decay,
        max_grad_norm=parameters.max_grad_norm,
        # numpy, which the trainer seeds too, takes no more than 32 bits; nothing here draws from it.
        seed=parameters.seed % 2**32,
        logging_strategy="steps",
        logging_steps=1,
        # It would hide a loss that is no number.
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        # Other devices are neither as exact nor as deterministic as these two.
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )


class OrderedTrainer(Trainer):
    """A Trainer whose batches, loss and learning rate are ours."""

    batches: Batches
    micro_batches: list[list[int]]

    def __init__(self, parameters: Parameters, **options: Any) -> None:
        super().__init__(compute_loss_func=token_loss, **options)
        self._parameters = parameters
        self.remove_callback(PrinterCallback)
        # token_loss normalises; a loss of the model's own would be computed for nothing.
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches in the mixture's order: nothing is shuffled, and nothing dropped.

        Not prepared by accelerate, whose wrapper would shard it by itself; the trainer moves each batch to the device anyway.
        """
        return DataLoader(range(len(self.batches.rows)), batch_sampler=self.micro_batches, collate_fn=self._collate)

    def _collate(self, positions: list[int]) -> dict[str, Any]:
        batch = self.batches.tensors(positions)
        return {**batch.inputs, "labels": batch.labels}

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LambdaLR:
        """Our own schedule in place of transformers'."""
        schedule = self._parameters.schedule
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: factor(schedule, step, num_training_steps))
        return self.lr_scheduler

    def floating_point_ops(self, inputs: Any) -> int:
        """Nobody reads them, and counting walks through all parameters at each micro-batch."""
        return 0


def token_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """Cross entropy, summed over the supervised tokens of a micro-batch and divided by their number in the GLOBAL batch.

    The gradients of a global batch's micro-batches then add up to the same whatever the split; a mean over micro-batches would weigh
    tokens in short ones more (https://huggingface.co/blog/gradient_accumulation).
    """
    targets = labels[:, 1:]
    supervised = targets >= 0
    # Only supervised positions: with completion masks most logits are not needed in the softmax.
    return cross_entropy(outputs.logits[:, :-1][supervised].float(), targets[supervised], reduction="sum") / num_items_in_batch


def _step_tokens(rows: Rows, steps: list[range]) -> list[int]:
    lengths = rows.lengths()
    return [int(lengths[step.start : step.stop].sum()) for step in steps]
