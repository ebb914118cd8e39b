"""Body of tokenize: renders rows, encodes them in batches, truncates or splits long ones, checks and writes them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.core.errors import UserError
from stages.chat.taught import TAUGHT, Taught
from stages.process.job import Job, Metrics
from stages.process.progress import progress
from stages.process.read_ahead import ahead
from stages.rows.rows import Row, read_rows
from stages.tokenize import Parameters
from stages.tokenize.judged import JudgedTokenization
from stages.tokenize.paired import PairTokenization
from stages.tokenize.tokenization import Tokenization
from stages.tokens.encoder import Encoder
from stages.tokens.files import TokenWriter

SPLITS = ("train", "validation")

# Rows are encoded in batches to keep the tokenizer's threads busy; both limits bound memory.
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 4_000_000


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `train.safetensors` and `validation.safetensors` (see stages.tokens.files), and the format's additions to the tokenizer.

    Raises UserError if no train row is left.
    """
    encoder = Encoder.open(job.group("tokenizer"))
    refuse_tokenizer(parameters, encoder)
    metrics: Metrics = {}
    for split in SPLITS:
        rows = progress(read_rows(job.inputs[split]), f"{job.name} {split}")
        tokenization = kind_of(parameters)(parameters, encoder, job.inputs.get("chat_template"))
        metrics[split] = write(tokenization, rows, job.output / f"{split}.safetensors")
    Taught.by(tokenization.renderer).write(job.output / TAUGHT)
    if not metrics["train"]["rows_out"]:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in metrics["train"]["left_out"].items())
        raise UserError("no rows left in the train split", hint=f"left out: {reasons or 'none, the split is empty'}")
    return metrics


def kind_of(parameters: Parameters) -> type[Tokenization]:
    """The class that tokenizes rows of the sort that PARAMETERS name."""
    return PairTokenization if parameters.pairs else JudgedTokenization if parameters.judged else Tokenization


def refuse_tokenizer(parameters: Parameters, encoder: Encoder) -> None:
    """Raise UserError if the tokenizer lacks something that PARAMETERS need."""
    if parameters.mask.needs_bos and encoder.bos is None:
        what = f"the mask '{parameters.mask.kind}' inserts a begin-of-sequence token after each response marker"
        raise UserError(
            f"{what}, but this tokenizer has no bos_token",
            hint='use the mask "assistant" or "completion", or a model whose tokenizer has one',
        )
    if parameters.boundary == "shift" and not encoder.has_offsets:
        what = "this is a Python tokenizer, which does not return character offsets"
        raise UserError(f'boundary = "shift" is not possible: {what}', hint='set tokenization.boundary = "apart"')


def write(tokenization: Tokenization, rows: Iterable[Row], path: Path) -> Metrics:
    """Write the token file of ROWS and return the counts; raises UserError if a policy is to fail."""
    with TokenWriter(path) as writer:
        # Pipelined: one batch is encoded while the next is read and the previous one is checked and written.
        for batch in ahead(tokenization.encoded, map(tokenization.rendered, batches(rows))):
            for ids, supervised, lengths, sources in tokenization.arrays(batch):
                conversations, marks = tokenization.take_conversations(), tokenization.marks(len(lengths))
                writer.write_rows(ids, supervised, lengths, sources, conversations, **marks)
    return tokenization.counts.metrics()


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """ROWS in lists with a limited number of rows and characters."""
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
