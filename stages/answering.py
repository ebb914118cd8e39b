"""Answers to single questions, by the models of experiments, with the code of the predict step: `python -m stages.answering`.

A process that loads models once and answers until its input ends. Both directions are lines of JSON. The first line in has `numerics`,
`threads` and `models`; each model has a `name`, the `parameters` of predict, its `inputs` by role, and optionally a request for `tokenize`.
Then each line in is one question, and lines out follow: `text` while an answer is generated, then one `answer`, `left_out` or `error`.
SIGINT ends the answer that is being generated, and nothing else.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.core.errors import Location, UserError
from engine.core.part import with_tuples
from stages.predict import Parameters, TaskPrediction
from stages.preview import tokens_of
from stages.process import numerics
from stages.process.job import Job
from stages.process.parent import die_with_parent
from stages.process.quiet import keep_quiet
from stages.rows.rows import Row, parse_row

_UNFINISHED = "\ufffd"
"""What a tokenizer decodes the first bytes of a character to."""

Say = Callable[[Mapping[str, Any]], None]


@dataclass
class Interruption:
    """Whether the user has ended the answer that is being generated."""

    asked: bool = False


@dataclass(frozen=True)
class Entrant:
    """A model, alone or with an adapter, and how it is asked."""

    name: str
    parameters: Parameters
    inputs: Mapping[str, Path]
    tokenize: Mapping[str, Any] | None

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Entrant":
        """The entrant that REQUEST describes."""
        parameters = Parameters.model_validate(with_tuples(request["parameters"]))
        inputs = {role: Path(path) for role, path in request["inputs"].items()}
        return cls(request["name"], parameters, inputs, request.get("tokenize"))

    @property
    def job(self) -> Job:
        """The entrant as the job of a predict step that writes nothing."""
        return Job(self.name, self.inputs, Path(), None, Path())

    @property
    def base(self) -> tuple[Path, Path | None]:
        """What entrants with the same model in memory have in common: the folder of the weights, and that of added tokens."""
        return self.inputs["model"], self.inputs.get("vocabulary")

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, with the added tokens."""
        from stages.models.folders import load_tokenizer

        return load_tokenizer(self.inputs.get("vocabulary", self.inputs["model"]))

    @cached_property
    def asking(self) -> Any:
        """What turns rows into prompts, as in the predict step."""
        from stages.predict.body import questions

        return questions(self.parameters, self.tokenizer, self.inputs.get("chat_template"))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids of the end tokens."""
        from stages.predict.entrants import adapter_folders

        found: tuple[int, ...] = self.asking.ends(self.inputs["model"], *adapter_folders(self.job, ""))
        return found


@dataclass
class Models:
    """The models in memory: each base once, and at most one adapter at a time on each, as in the predict step."""

    bases: dict[tuple[Path, Path | None], Any] = field(default_factory=dict)
    on: dict[tuple[Path, Path | None], tuple[Path, Any]] = field(default_factory=dict)
    """The adapter that is on a base, and the base with it."""

    def of(self, entrant: Entrant) -> Any:
        """The model of ENTRANT; another adapter on the same base is taken off first."""
        from stages.models.folders import load_adapter
        from stages.predict.entrants import take_off

        base, adapter = self._base(entrant), entrant.inputs.get("adapter")
        there = self.on.get(entrant.base)
        if there and there[0] != adapter:
            self.bases[entrant.base] = base = take_off(self.on.pop(entrant.base)[1])
            there = None
        if adapter is None:
            return base
        if there is None:
            self.on[entrant.base] = there = adapter, load_adapter(base, adapter)
        return there[1]

    def _base(self, entrant: Entrant) -> Any:
        from stages.models.added_tokens import extend
        from stages.predict.entrants import load

        if entrant.base not in self.bases:
            model = load(entrant.inputs["model"])
            if "vocabulary" in entrant.inputs:
                extend(model, entrant.inputs["vocabulary"])
            self.bases[entrant.base] = model
        return self.bases[entrant.base]


@dataclass
class Answering:
    """Answers questions, one after the other."""

    entrants: Mapping[str, Entrant]
    say: Say
    interruption: Interruption
    models: Models = field(default_factory=Models)

    def answer(self, question: Mapping[str, Any]) -> None:
        """Say the answer to QUESTION: `model`, `task`, `row`, `where` (file and line); optional are `stream`, `raw`, `max_new_tokens`."""
        entrant, task = self.entrants[question["model"]], str(question["task"])
        row = parse_row(question["row"], Location(*question["where"]), unanswered=True)
        found = self._answer(entrant, task, row, question)
        self.say({"event": "left_out" if "left_out" in found else "answer", "model": entrant.name, "id": row.id, **found})

    def _answer(self, entrant: Entrant, task: str, row: Row, question: Mapping[str, Any]) -> dict[str, Any]:
        from stages.models.folders import longest_sequence
        from stages.models.generation import generate
        from stages.predict.body import prediction
        from stages.predict.entrants import virtual_tokens
        from stages.predict.exam import Reader

        asked = entrant.parameters.tasks.get(task)
        limit = question.get("max_new_tokens") or (asked.max_new_tokens if asked else TaskPrediction().max_new_tokens)
        # As in the predict step, but for the likelihood of references, which a question does not have.
        parameters = entrant.parameters.model_copy(
            update={"tasks": {task: TaskPrediction(max_new_tokens=limit)}, "likelihood": False, "held_out": ()}
        )
        model = self.models.of(entrant)
        reader = Reader(parameters, entrant.asking, longest_sequence(model.config, virtual_tokens(entrant.job)))
        rendered = reader.question(task, row)
        if isinstance(rendered, str):
            return {"left_out": rendered}
        watcher = Watcher(entrant, len(rendered.input_ids), self.say if question.get("stream") else None, self.interruption)
        self.interruption.asked = False
        try:
            (ids,) = generate(
                model,
                [rendered.input_ids],
                entrant.ends,
                limit,
                1,
                processors=lambda numbers: [*parameters.decoding.processors([rendered.id for _ in numbers]), watcher],
            )
        except Interrupted:
            ids = watcher.ids
        made = prediction(task, rendered, ids, entrant.tokenizer, entrant.asking, entrant.ends, None)
        watcher.finish(ids)
        found = asdict(made) | {"interrupted": self.interruption.asked}
        return found | ({"raw": self._raw(entrant, row, rendered.input_ids, ids)} if question.get("raw") else {})

    def _raw(self, entrant: Entrant, row: Row, prompt: Sequence[int], answer: Sequence[int]) -> dict[str, Any]:
        """The tokens that the model read and generated, and those that a training would see for this row with this answer."""
        tokens = entrant.tokenizer.encoder
        parts = ((prompt, False), (answer, True))
        seen = [{"id": one, "text": tokens.decode([[one]])[0], "generated": made} for ids, made in parts for one in ids]
        if entrant.tokenize is None:
            return {"tokens": seen}
        (said,) = tokens.decode([[one for one in answer if one not in entrant.ends]])
        learned = {"id": row.id, "group": row.group, **_as_row(row, said)}
        with TemporaryDirectory() as folder:
            return {"tokens": seen, "training": dict(tokens_of(entrant.tokenize, learned, Path(folder) / "row"))}


def _as_row(row: Row, answer: str) -> dict[str, Any]:
    """ROW with ANSWER as its last answer, in the form in which it was given."""
    if not row.messages:
        return {"prompt": row.prompt, "completion": answer} | ({"system": row.system} if row.system is not None else {})
    return {"messages": [*row.question, {"role": "assistant", "content": answer}]} | ({"tools": list(row.tools)} if row.tools else {})


class Interrupted(Exception):
    """The user ended the answer."""


class Watcher:
    """A logits processor that changes nothing: says the text as it grows, and ends the generation when the user asks for it."""

    def __init__(self, entrant: Entrant, prompt: int, say: Say | None, interruption: Interruption) -> None:
        self._decode, self._ends = entrant.tokenizer.encoder.decode, entrant.ends
        # The ids of an encoder-decoder begin with its start token, and do not contain the prompt.
        self._first = 1 if entrant.parameters.encoder_decoder else prompt
        self._say, self._interruption, self._said = say, interruption, ""
        self.ids: list[int] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """SCORES [1, vocabulary] as they are; INPUT_IDS [1, length] are the ids so far."""
        self.ids = [int(one) for one in input_ids[0, self._first :]]
        self._tell(self.ids)
        if self._interruption.asked:
            raise Interrupted
        return scores

    def finish(self, ids: Sequence[int]) -> None:
        """Say the end of the text of IDS."""
        self._tell([one for one in ids if one not in self._ends], whole=True)

    def _tell(self, ids: Sequence[int], whole: bool = False) -> None:
        if self._say is None or not ids:
            return
        (text,) = self._decode([list(ids)])
        if text.startswith(self._said) and text != self._said and (whole or not text.endswith(_UNFINISHED)):
            self._say({"event": "text", "text": text[len(self._said) :]})
            self._said = text


def serve(lines: Iterator[str], say: Say, interruption: Interruption) -> None:
    """Answer the questions in LINES, the first of which describes the models."""
    request = json.loads(next(lines))
    numerics.begin(request["numerics"])
    entrants = {entrant.name: entrant for entrant in map(Entrant.of, request["models"])}
    from stages.models.folders import prepare_process

    prepare_process(request["threads"])
    answering = Answering(entrants, say, interruption)
    for entrant in entrants.values():
        answering.models.of(entrant)
    say({"event": "ready"})
    for line in lines:
        try:
            answering.answer(json.loads(line))
        except UserError as error:
            say({"event": "error", "text": "\n\n".join(str(problem) for problem in error.problems)})


def main() -> int:
    """Answer until the input ends; a user error in the description of the models goes to stderr, with exit code 1."""
    interruption = Interruption()
    signal.signal(signal.SIGINT, lambda *_: setattr(interruption, "asked", True))
    die_with_parent(signal.SIGTERM)
    keep_quiet()
    # Libraries print to stdout, which is for answers.
    out, sys.stdout = sys.stdout, sys.stderr

    def say(event: Mapping[str, Any]) -> None:
        print(json.dumps(event), file=out, flush=True)

    try:
        serve(iter(sys.stdin.readline, ""), say, interruption)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
