"""Runs a `local` teacher: windows of questions, answered in batches of similar length, journalled for resuming."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError
from stages.generate.asking.conversation import CUT_OFF, EMPTY
from stages.generate.asking.request import opening
from stages.generate.question import Answer, Question, Tally
from stages.models.folders import load_model, longest_sequence, prepare_process
from stages.process.job import Job
from stages.process.progress import progress
from stages.rows.text import shorten
from stages.tokens.ends import declared_ends, end_behind, united

if TYPE_CHECKING:
    from stages.generate.teachers.local import Local

_WINDOW = 512
"""Questions per window, sorted by length together; bounds memory, and the work lost when the step is killed."""


def answers(teacher: "Local", questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
    """The answers to QUESTIONS, in order; answers of an interrupted run of the same step are not computed again."""
    responder, journal = Responder(teacher, job.inputs["teacher"]), Journal(job.scratch / "answers.jsonl")
    todo, counts, started = iter(questions), Counter[str](), monotonic()
    with progress(iter(()) if tally.expected is None else tally.expected, job.name, "answers") as bar:
        while window := list(islice(todo, _WINDOW)):
            found = journal.read(len(window))
            counts["resumed" if found else "computed"] += len(window)
            if found is None:
                found = responder.respond(window)
                journal.write(found)
            yield from found
            bar.update(len(window), f"{counts['computed'] / max(monotonic() - started, 1e-9):.1f} computed/s")
    tally.measured["teacher"] = dict(counts)


class Journal:
    """Answers of finished windows, in the step's scratch folder, which is specific to this recipe and these inputs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        self._windows = [[Answer(*answer) for answer in json.loads(line)] for line in lines]
        # An incomplete last line was being written when the run was killed.
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        self._read = 0

    def read(self, size: int) -> list[Answer] | None:
        """The next window of SIZE answers, if an earlier run finished it."""
        if self._read >= len(self._windows):
            return None
        window = self._windows[self._read]
        assert len(window) == size, "the scratch folder belongs to other questions"
        self._read += 1
        return window

    def write(self, window: Sequence[Answer]) -> None:
        """Store a finished window."""
        with self._path.open("ab") as file:
            file.write(json.dumps([[answer.text, answer.left_out] for answer in window]).encode() + b"\n")


@dataclass
class Responder:
    """The model, loaded with the first question."""

    teacher: "Local"
    folder: Path

    @cached_property
    def _model(self) -> Any:
        import torch

        prepare_process(self.teacher.threads)
        return load_model(self.folder).to("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def _tokenizer(self) -> Any:
        prepare_process(self.teacher.threads)
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot load the tokenizer in {self.folder}: {error}") from None

    @cached_property
    def _ends(self) -> list[int]:
        """Ids of the end tokens (see stages.tokens.ends)."""
        tokenizer = self._tokenizer
        behind = tokenizer.convert_tokens_to_ids(end) if (end := self._end_of_turn()) else None
        found = united(behind, tokenizer.eos_token_id, *declared_ends(self.folder, len(tokenizer)))
        if not found:
            raise UserError(f"the model in {self.folder} has no end-of-sequence token: its answers would never end")
        return list(found)

    def _end_of_turn(self) -> str | None:
        """The token that the chat template writes after an answer, if questions are rendered with it."""
        if not self._is_chat:
            return None
        messages = [{"role": "user", "content": "Qprobe"}, {"role": "assistant", "content": "Aprobe"}]
        try:
            _, found, rest = str(self._tokenizer.apply_chat_template(messages, tokenize=False)).rpartition("Aprobe")
        except Exception:  # a template can raise anything, and this one may support prompts only
            return None
        return end_behind(rest, 0, sorted(self._tokenizer.get_added_vocab(), key=len, reverse=True)) if found else None

    @cached_property
    def _is_chat(self) -> bool:
        return self.teacher.chat == "auto" and bool(self._tokenizer.chat_template)

    def respond(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to QUESTIONS, in order; rows of similar length share a batch."""
        prompts = [self._encoded(question) for question in questions]
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        found: list[Answer | None] = [None] * len(prompts)
        for start in range(0, len(order), self.teacher.batch_rows):
            batch = order[start : start + self.teacher.batch_rows]
            for number, ids in zip(batch, self._generated([prompts[number] for number in batch]), strict=True):
                found[number] = self._answer(questions[number], ids)
        return [answer for answer in found if answer is not None]

    def _encoded(self, question: Question) -> list[int]:
        """Token ids of a question, rendered with the chat template if there is one."""
        messages = opening(question.system, question.prompt)
        if self._is_chat:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = self._tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"]
        self._check_length(ids, question)
        return list(ids)

    def _check_length(self, ids: Sequence[int], question: Question) -> None:
        if not ids:
            raise UserError("the prompt is empty: the model needs at least one token", question.where)
        room = None if self._model.config.is_encoder_decoder else longest_sequence(self._model.config)
        if room is not None and len(ids) + self.teacher.max_new_tokens > room:
            what = (
                f"prompt ({len(ids)} tokens) and teacher.max_new_tokens ({self.teacher.max_new_tokens}) exceed the model's {room} positions"
            )
            raise UserError(what, question.where, "decrease teacher.max_new_tokens, shorten the prompt, or use another model")

    def _generated(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """New token ids of each prompt; padded on the left for a decoder, on the right for an encoder."""
        import torch
        from transformers import GenerationConfig

        model, width = self._model, max(map(len, prompts))
        filler = [[self._ends[0]] * (width - len(prompt)) for prompt in prompts]
        blank, ones = [[0] * len(fill) for fill in filler], [[1] * len(prompt) for prompt in prompts]
        behind = model.config.is_encoder_decoder
        rows = [prompt + fill if behind else fill + prompt for prompt, fill in zip(prompts, filler, strict=True)]
        mask = [one + zero if behind else zero + one for one, zero in zip(ones, blank, strict=True)]
        # Only our settings: a published model's generation config may sample, or penalise repetition.
        start = model.generation_config.decoder_start_token_id if behind else None
        start = model.config.decoder_start_token_id if behind and start is None else start
        model.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.teacher.max_new_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
            decoder_start_token_id=start,
        )
        with torch.inference_mode():
            output = model.generate(
                input_ids=torch.tensor(rows, device=model.device), attention_mask=torch.tensor(mask, device=model.device)
            )
        return [list(row) for row in output[:, 1 if behind else width :].tolist()]

    def _answer(self, question: Question, ids: Sequence[int]) -> Answer:
        """The stripped text up to the end; the on_cut_off policy decides about an answer without an end."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        text = str(self._tokenizer.decode(list(ids[:end]), skip_special_tokens=True))
        stops = [place for stop in self.teacher.stop if (place := text.find(stop)) >= 0]
        ended = end is not None or bool(stops)
        text = text[: min(stops)].strip() if stops else text.strip()
        if not ended and self.teacher.on_cut_off == "fail":
            hint = 'increase teacher.max_new_tokens, or set teacher.on_cut_off = "drop"'
            raise UserError(f"the answer does not end within {self.teacher.max_new_tokens} tokens: {shorten(text)}", question.where, hint)
        if not ended and self.teacher.on_cut_off == "drop":
            return Answer("", CUT_OFF)
        return Answer(text) if text else Answer("", EMPTY)
