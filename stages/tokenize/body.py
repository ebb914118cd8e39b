"""The work of tokenize: prompt and completion are encoded apart, joined, closed by one supervised end-of-sequence token, and checked."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.errors import Location, UserError
from stages.common.job import Job, Metrics
from stages.common.jsonl import read_objects
from stages.common.progress import progress
from stages.common.text import is_well_formed, shorten
from stages.common.tokens import Array, Tokens, TokenWriter
from stages.tokenize import Parameters
from stages.tokenize.encoder import Encoder

SPLITS = ("train", "validation")

# Rows are encoded together so that the tokenizer's threads have work; both limits bound the memory.
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 4_000_000


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write `train.safetensors` and `validation.safetensors` (see stages.common.tokens); raises UserError where no train row is left."""
    encoder = Encoder.open(job.inputs["tokenizer/tokenizer.json"], job.inputs["tokenizer/tokenizer_config.json"])
    metrics: Metrics = {}
    for split in SPLITS:
        rows = progress(read_texts(job.inputs[split]), f"{job.name} {split}")
        metrics[split] = Tokenization(parameters, encoder).write(rows, job.output / f"{split}.safetensors")
    if not metrics["train"]["rows_out"]:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in metrics["train"]["left_out"].items())
        raise UserError("no row of the train split is left", hint=f"left out: {reasons or 'none, the split is empty'}")
    return metrics


@dataclass(frozen=True)
class Texts:
    """One row as text."""

    where: Location
    id: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class Encoded:
    """One row as token ids; the completion ends with the end-of-sequence token."""

    texts: Texts
    prompt: list[int]
    completion: list[int]
    prompt_cut: bool = False
    completion_cut: bool = False

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class Tokenization:
    """Turns the rows of one split into a token file and counts what happened to them."""

    def __init__(self, parameters: Parameters, encoder: Encoder) -> None:
        self.parameters, self.encoder = parameters, encoder
        self.left_out: Counter[str] = Counter()
        self.rows_in = self.truncated = self.mismatches = 0

    def write(self, rows: Iterable[Texts], path: Path) -> Metrics:
        """Write the token file of ROWS and return the counts; raises UserError where a row is too long and the policy is to fail."""
        with TokenWriter(path) as writer:
            for batch in batches(rows):
                encoded = list(self._encode(batch))
                self._check_text(encoded)
                for row in encoded:
                    writer.write(*self._arrays(row))
        metrics = self._metrics(Tokens.open(path))
        assert metrics["rows_in"] == metrics["rows_out"] + sum(metrics["left_out"].values())
        return metrics

    def _encode(self, batch: list[Texts]) -> Iterator[Encoded]:
        """The rows of BATCH within the longest length, those left out aside."""
        self.rows_in += len(batch)
        usable = [texts for texts in batch if is_well_formed(texts.prompt + texts.completion)]
        if len(usable) < len(batch):
            self.left_out["lone surrogate"] += len(batch) - len(usable)
        prompts = self.encoder.encode([texts.prompt for texts in usable])
        completions = self.encoder.encode([texts.completion for texts in usable])
        for texts, prompt, completion in zip(usable, prompts, completions, strict=True):
            row = self._row(texts, prompt, completion)
            if isinstance(row, str):
                self.left_out[row] += 1
            else:
                self.truncated += row.prompt_cut or row.completion_cut
                yield row

    def _row(self, texts: Texts, prompt: list[int], completion: list[int]) -> Encoded | str:
        """The row with one end-of-sequence token, within the longest length; or why it is left out."""
        eos = self.encoder.eos_id
        answer = completion[:-1] if completion[-1:] == [eos] else completion
        if eos in answer:  # learned, it would teach to stop in the middle of an answer
            return "end-of-sequence token inside the completion"
        row = Encoded(texts, prompt, [*answer, eos])
        if len(row) - self.parameters.mask.supervised_from(len(prompt)) <= 1:
            return "nothing to learn but the end-of-sequence token"
        return row if len(row) <= self.parameters.max_length else self._shorten(row)

    def _shorten(self, row: Encoded) -> Encoded | str:
        """What the policy makes of a row that is too long; or why it is left out."""
        limit = self.parameters.max_length
        match self.parameters.over_length:
            case "error":
                what = f"row {row.texts.id} has {len(row)} tokens, max_length is {limit}"
                hint = 'raise tokenization.max_length, or set over_length to "drop", "truncate_prompt_left" or "truncate_completion_right"'
                raise UserError(what, row.texts.where, hint)
            case "truncate_prompt_left":
                room = limit - len(row.completion)
                if room < 0:
                    return "completion longer than max_length"
                return replace(row, prompt=row.prompt[len(row.prompt) - room :], prompt_cut=True)
            case "truncate_completion_right":
                room = limit - len(row.prompt) - 1
                if room < 1:
                    return "prompt longer than max_length"
                return replace(row, completion=[*row.completion[:room], self.encoder.eos_id], completion_cut=True)
            case "drop":
                return "longer than max_length"

    def _check_text(self, rows: list[Encoded]) -> None:
        """Decode every whole completion and compare it with its text; raises UserError where a byte-level tokenizer loses any of it."""
        whole = [row for row in rows if not row.completion_cut]
        for row, decoded in zip(whole, self.encoder.decode(row.completion[:-1] for row in whole), strict=True):
            completion = row.texts.completion
            if decoded in (completion, completion.removesuffix(self.encoder.eos)):
                continue
            self.mismatches += 1
            if self.encoder.lossless:
                what = f"the tokens of row {row.texts.id} decode to {shorten(decoded)}, its completion is {shorten(completion)}"
                raise UserError(what, row.texts.where, "the tokenizer's files are damaged or lack some bytes; take the model's own")

    def _arrays(self, row: Encoded) -> tuple[Array, Array]:
        """Ids and mask of a row, after a check that the mask is what it must be."""
        input_ids = np.array(row.prompt + row.completion, np.int32)
        supervised = np.zeros(len(row), np.uint8)
        supervised[self.parameters.mask.supervised_from(len(row.prompt)) :] = 1
        answer, mask = input_ids[len(row.prompt) :], supervised[len(row.prompt) :]
        assert len(row) <= self.parameters.max_length
        assert mask.all(), "every token of the completion is supervised"
        assert input_ids[-1] == self.encoder.eos_id and np.count_nonzero(answer == self.encoder.eos_id) == 1
        assert self.parameters.mask.kind != "completion" or not supervised[: len(row.prompt)].any()
        return input_ids, supervised

    def _metrics(self, tokens: Tokens) -> Metrics:
        return {
            "rows_in": self.rows_in,
            "rows_out": len(tokens),
            "left_out": dict(sorted(self.left_out.items())),
            "truncated": self.truncated,
            "round_trip_mismatch": self.mismatches,
            "tokens": len(tokens.input_ids),
            "supervised_tokens": int(tokens.supervised_lengths.sum()),
            "longest": int(tokens.lengths.max(initial=0)),
        }


def read_texts(path: Path) -> Iterator[Texts]:
    """The rows of a split."""
    for where, row in read_objects(path):
        identity, prompt, completion = row["id"], row["prompt"], row["completion"]
        assert isinstance(identity, str) and isinstance(prompt, str) and isinstance(completion, str)
        yield Texts(where, identity, prompt, completion)


def batches(rows: Iterable[Texts]) -> Iterator[list[Texts]]:
    """ROWS in lists that are neither too many nor too long together."""
    batch: list[Texts] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.prompt) + len(row.completion)
        if len(batch) == _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
