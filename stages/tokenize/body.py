"""The work of tokenize: rows are rendered, encoded in batches, cut where they are too long, checked, and written."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.core.errors import UserError
from stages.chat.taught import TAUGHT, Taught
from stages.process.job import Job, Metrics
from stages.process.progress import progress
from stages.process.read_ahead import ahead
from stages.rows.rows import Row, read_rows
from stages.tokenize import Parameters
from stages.tokenize.tokenization import Tokenization
from stages.tokens.encoder import Encoder
from stages.tokens.files import TokenWriter

SPLITS = ("train", "validation")

# Rows are encoded together so that the tokenizer's threads have work; both limits bound the memory.
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 4_000_000


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `train.safetensors` and `validation.safetensors` (see stages.tokens.files), and what the format adds to the tokenizer.

    Raises UserError where no train row is left.
    """
    encoder = Encoder.open(job.group("tokenizer"))
    refuse_tokenizer(parameters, encoder)
    metrics: Metrics = {}
    for split in SPLITS:
        rows = progress(read_rows(job.inputs[split]), f"{job.name} {split}")
        tokenization = Tokenization(parameters, encoder, job.inputs.get("chat_template"))
        metrics[split] = write(tokenization, rows, job.output / f"{split}.safetensors")
    Taught.by(tokenization.renderer).write(job.output / TAUGHT)
    if not metrics["train"]["rows_out"]:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in metrics["train"]["left_out"].items())
        raise UserError("no row of the train split is left", hint=f"left out: {reasons or 'none, the split is empty'}")
    return metrics


def refuse_tokenizer(parameters: Parameters, encoder: Encoder) -> None:
    """Raise UserError where the tokenizer lacks what the parameters ask for."""
    if parameters.mask.needs_bos and encoder.bos is None:
        what = f"the mask '{parameters.mask.kind}' puts a begin-of-sequence token behind each response marker"
        raise UserError(
            f"{what}, and this tokenizer has no bos_token",
            hint='choose the mask "assistant" or "completion", or a model whose tokenizer has one',
        )
    if parameters.boundary == "shift" and not encoder.has_offsets:
        what = "this tokenizer is written in Python and does not say where in the text its tokens lie"
        raise UserError(f'boundary = "shift" cannot be: {what}', hint='set tokenization.boundary = "apart"')


def write(tokenization: Tokenization, rows: Iterable[Row], path: Path) -> Metrics:
    """Write the token file of ROWS and return the counts; raises UserError where a row is refused."""
    with TokenWriter(path) as writer:
        # The tokenizer works on one batch while the next is read and the last is checked and written.
        for batch in ahead(tokenization.encoded, map(tokenization.rendered, batches(rows))):
            for ids, supervised, lengths, sources in tokenization.arrays(batch):
                writer.write_rows(ids, supervised, lengths, sources, tokenization.take_conversations())
    return tokenization.counts.metrics()


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """ROWS in lists that are neither too many nor too long together."""
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += row.characters
        if len(batch) == _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
