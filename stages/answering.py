"""Answers to single questions, by the models of experiments, with the code of the predict step: `python -m stages.answering`.

A process that loads models once and answers until its input ends. Both directions are lines of JSON. The first line in has `numerics`,
`threads` and `models`; each model has a `name`, the `parameters` of predict, its `inputs` by role, and optionally `limit_gives_way`,
a request for `tokenize`, and the steps that generate the rows of `tasks`. It is answered by a `loading` event for each model, and `ready`.

Each further line in is `{"ask": [question, ...]}`: questions to one model, with one sampling, that are generated as one batch. Lines out
follow: `text` while an answer is generated, one `answer`, `left_out`, `error` or `failed` for each question as soon as it is complete, and
`done`. A question with a `number` has it in its events. The line `{"cancel": number}` ends one answer, without an event; SIGINT ends
all answers that are being generated, and nothing else.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from engine.core.errors import Location, UserError
from engine.core.part import with_tuples
from stages.chat.formats.plain import Plain
from stages.predict import Parameters, TaskPrediction
from stages.predict.decoding import Decoding, Greedy, Sample
from stages.preview import tokens_of
from stages.process import numerics
from stages.process.job import Job
from stages.process.parent import die_with_parent
from stages.process.quiet import keep_quiet
from stages.rows.rows import Row, parse_row
from stages.streaming import Answer, Enough, Interruption, Watcher

if TYPE_CHECKING:
    from stages.generate.body import Generation
    from stages.predict.exam import Question

Say = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Entrant:
    """A model, alone or with an adapter, and how it is asked."""

    name: str
    parameters: Parameters
    inputs: Mapping[str, Path]
    tokenize: Mapping[str, Any] | None
    tasks: Mapping[str, Mapping[str, Any]]
    """The steps that generate the rows of tasks: a `name`, their `parameters` and their `inputs` by role."""
    limit_gives_way: bool = False
    """Whether an answer of which nobody has said how long it may be gets the room that its prompt leaves, up to the task's limit."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Entrant":
        """The entrant that REQUEST describes."""
        parameters = Parameters.model_validate(with_tuples(request["parameters"]))
        inputs = {role: Path(path) for role, path in request["inputs"].items()}
        tasks, gives_way = request.get("tasks", {}), bool(request.get("limit_gives_way"))
        return cls(request["name"], parameters, inputs, request.get("tokenize"), tasks, gives_way)

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
    def continuing(self) -> Any:
        """What turns a text into a prompt as it stands: without format or markers, control tokens included."""
        from stages.predict.body import questions

        changes = {"format": Plain(), "markers": None, "unrendered": "allow", "control_tokens_in_text": "control"}
        return questions(self.parameters.model_copy(update=changes), self.tokenizer, None)

    @cached_property
    def reasoning_end(self) -> str:
        """The text that ends the reasoning of an answer; empty if the format has none."""
        renderer = self.parameters.format.renderer(self.tokenizer.encoder, self.inputs.get("chat_template"))
        presentation = getattr(renderer, "presentation", None)
        return presentation.reasoning_end if presentation else ""

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids of the end tokens."""
        from stages.predict.entrants import adapter_folders

        found: tuple[int, ...] = self.asking.ends(self.inputs["model"], *adapter_folders(self.job, ""))
        return found

    def row(self, task: str, given: Mapping[str, Any], where: Location) -> Row:
        """The row GIVEN, with its own prompt, or with the one that TASK makes of its columns, as before an evaluation."""
        if {"prompt", "messages"} & given.keys() or task not in self.tasks:
            return parse_row(given, where, unanswered=True)
        return parse_row(self._generation(task).question(dict(given), where), where, unanswered=True)

    def _generation(self, task: str) -> "Generation":
        from stages import generate
        from stages.generate.body import Generation

        if task not in self._generations:
            step = self.tasks[task]
            inputs = {role: Path(path) for role, path in step["inputs"].items()}
            parameters = generate.Parameters.model_validate(with_tuples(step["parameters"]))
            self._generations[task] = Generation(parameters, Job(step["name"], inputs, Path(), None, Path()))
        return self._generations[task]

    @cached_property
    def _generations(self) -> "dict[str, Generation]":
        return {}

    def decoding(self, sampling: Mapping[str, Any]) -> Decoding:
        """The experiment's decoding, with what a question sets otherwise: `temperature`, `top_p`, `top_k`, `seed`."""
        own = self.parameters.decoding
        set_here = {name: value for name, value in sampling.items() if value is not None}
        before = own.model_dump(exclude={"kind"}) if isinstance(own, Sample) else {"temperature": 0}
        values = before | set_here
        if not values["temperature"]:
            return Greedy()
        return Sample(**values | ({"top_p": None} if values.get("top_p") == 1 else {}))


@dataclass
class Models:
    """The models in memory: each base once, and at most one adapter at a time on each, as in the predict step."""

    bases: dict[tuple[Path, Path | None], Any] = field(default_factory=dict)
    on: dict[tuple[Path, Path | None], tuple[Path, Any]] = field(default_factory=dict)
    """The adapter that is on a base, and the base with it."""
    parts: dict[tuple[Path, Path | None], int] = field(default_factory=dict)
    """The number of parts into which the work of a base is divided: it decides bits, and follows from the size of each."""

    def of(self, entrant: Entrant) -> Any:
        """The model of ENTRANT; another adapter on the same base is taken off first."""
        import torch

        from stages.predict.entrants import put_on, take_off

        base, adapter = self._base(entrant), entrant.inputs.get("adapter")
        torch.set_num_threads(self.parts[entrant.base])
        there = self.on.get(entrant.base)
        if there and there[0] != adapter:
            self.bases[entrant.base] = base = take_off(self.on.pop(entrant.base)[1])
            there = None
        if adapter is None:
            return base
        if there is None:
            self.on[entrant.base] = there = adapter, put_on(base, adapter)
        return there[1]

    def _base(self, entrant: Entrant) -> Any:
        import torch

        from stages.models.added_tokens import extend
        from stages.predict.entrants import load

        if entrant.base not in self.bases:
            model = load(entrant.inputs["model"])
            if "vocabulary" in entrant.inputs:
                extend(model, entrant.inputs["vocabulary"])
            self.bases[entrant.base], self.parts[entrant.base] = model, torch.get_num_threads()
        return self.bases[entrant.base]


@dataclass
class Answering:
    """Answers questions, one batch after the other."""

    entrants: Mapping[str, Entrant]
    say: Say
    interruption: Interruption
    models: Models = field(default_factory=Models)

    def answer(self, questions: Sequence[Mapping[str, Any]]) -> None:
        """Say the answers to QUESTIONS, all to one model and with one `sampling`.

        A question has `model`, `task`, `row` and `where` (file and line). Optional are `max_new_tokens`, `sampling` (see
        `Entrant.decoding`), `plain` (the prompt is continued as it stands), `ids` (the prompt as token ids, in place of the row's), `raw`,
        and `number`, `stop`, `stream` and `logprobs` (the number of alternatives), for which see `Answer`.
        """
        self.interruption.asked = False
        entrant = self.entrants[questions[0]["model"]]
        asked = []
        for question in questions:
            if question.get("number") in self.interruption.cancelled:
                continue
            try:
                found = self._prepared(entrant, question)
            except UserError as error:
                text = "\n\n".join(str(problem) for problem in error.problems)
                briefly = error.briefly if isinstance(error, TooLong) else "; ".join(problem.what for problem in error.problems)
                self._tell(question, event="error", text=text, briefly=briefly, too_long=isinstance(error, TooLong))
            else:
                if isinstance(found, Answer):
                    asked.append(found)
                else:
                    self._tell(question, event="left_out", model=entrant.name, **found)
        self._generate(entrant, asked, questions[0].get("sampling") or {})
        self.interruption.cancelled.difference_update(question.get("number") for question in questions)

    def _tell(self, question: Mapping[str, Any], **event: Any) -> None:
        self.say(event | ({"number": question["number"]} if "number" in question else {}))

    def _prepared(self, entrant: Entrant, question: Mapping[str, Any]) -> Answer | dict[str, Any]:
        """The answer to QUESTION, of which nothing is generated yet; `left_out` and `id` if the row is not asked."""
        from stages.models.folders import longest_sequence
        from stages.predict.entrants import virtual_tokens

        task, plain = str(question["task"]), bool(question.get("plain"))
        row = entrant.row(task, question["row"], Location(*question["where"]))
        asked = entrant.parameters.tasks.get(task)
        given = question.get("max_new_tokens")
        limit = given or (asked.max_new_tokens if asked else TaskPrediction().max_new_tokens)
        asking = entrant.continuing if plain else entrant.asking
        longest = longest_sequence(self.models.of(entrant).config, virtual_tokens(entrant.job))
        ids = question.get("ids")
        if entrant.limit_gives_way and given is None and longest is not None and not entrant.parameters.encoder_decoder:
            limit = max(1, min(limit, longest - (_length(asking, row) if ids is None else len(ids))))
        rendered = _rendered(entrant, asking, task, row, limit, longest, ids)
        if isinstance(rendered, str):
            return {"id": row.id, "left_out": rendered}
        return Answer(
            rendered,
            entrant.tokenizer.encoder,
            asking,
            entrant.ends,
            limit,
            say=lambda event: self._tell(question, **event),
            complete=lambda answer: self._complete(entrant, task, row, question, answer),
            number=question.get("number"),
            stop=tuple(question.get("stop") or ()),
            stream=question.get("stream"),
            reasoning_end="" if plain else entrant.reasoning_end,
            alternatives=question.get("logprobs"),
        )

    def _generate(self, entrant: Entrant, asked: Sequence[Answer], sampling: Mapping[str, Any]) -> None:
        """Generate the answers ASKED in one batch; where memory does not suffice, in two."""
        import torch

        from stages.models.generation import generate

        asked = [answer for answer in asked if not answer.is_complete]
        if not asked:
            return
        model, decoding = self.models.of(entrant), entrant.decoding(sampling)

        def processors(numbers: Sequence[int]) -> list[Any]:
            batch = [asked[number] for number in numbers]
            # The ids of an encoder-decoder begin with its start token, and do not contain the prompt.
            first = 1 if entrant.parameters.encoder_decoder else max(len(answer.question.input_ids) for answer in batch)
            watcher = Watcher(batch, first, self.interruption)
            return [watcher.record, *decoding.processors([answer.question.id for answer in batch]), watcher]

        prompts, limit = [answer.question.input_ids for answer in asked], max(answer.limit for answer in asked)
        try:
            made = generate(model, prompts, entrant.ends, limit, len(asked), processors=processors, halves=False)
        except Enough:
            # Rows that may not be padded are several batches, of which only one may have ended.
            self._generate(entrant, asked, sampling)
            return
        except torch.OutOfMemoryError:
            if len(asked) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(asked) // 2
            self._generate(entrant, asked[:half], sampling)
            self._generate(entrant, asked[half:], sampling)
            return
        for answer, ids in zip(asked, made, strict=True):
            answer.read(ids[: answer.limit])

    def _complete(self, entrant: Entrant, task: str, row: Row, question: Mapping[str, Any], answer: Answer) -> None:
        """Say that ANSWER to QUESTION is complete."""
        from stages.predict.body import prediction

        made = prediction(task, answer.question, answer.ids, entrant.tokenizer, answer.asking, entrant.ends, None)
        if answer.stopped is not None:
            reasoning, said = answer.asking.split(answer.stopped)
            made = replace(made, answer=said, reasoning=reasoning or None, finish_reason="stop")
        answer.tell(answer.text() if answer.stream == "text" else made.answer or "")
        found = {"event": "answer", "model": entrant.name, **asdict(made), "interrupted": answer.interrupted}
        if "number" in question:
            found |= {"prompt_tokens": len(answer.question.input_ids), **answer.new_logprobs()}
        if question.get("raw"):
            found |= {"raw": self._raw(entrant, row, answer.question.input_ids, answer.ids)}
        answer.say(found)

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


class TooLong(UserError):
    """The prompt leaves no room for the answer in the model's context."""

    def __init__(self, where: Location | None, tokens: int, limit: int, longest: int) -> None:
        self.briefly = f"the prompt has {tokens} tokens and the answer up to {limit}, but the model has a context of {longest}"
        shorter = "shorten the prompt, or begin a new conversation"
        hint = f"allow {longest - tokens} tokens at most (--max-new-tokens, max_tokens), or {shorter}" if tokens < longest else shorter
        super().__init__(self.briefly, where, hint)


def _rendered(
    entrant: Entrant, asking: Any, task: str, row: Row, limit: int, longest: int | None, ids: Sequence[int] | None
) -> "Question | str":
    """ROW, or a prompt of IDS, as a question that leaves room for LIMIT tokens, or the reason for leaving it out, as in the predict step.

    Raises UserError where the spec refuses the row; TooLong if it does not fit the LONGEST sequence.
    """
    from stages.predict.exam import Question, Reader

    def refuse(where: Location | None, tokens: int) -> None:
        shared = 0 if entrant.parameters.encoder_decoder else limit
        if longest is not None and tokens + shared > longest:
            raise TooLong(where, tokens, limit, longest)

    if ids is not None:
        if not ids:
            raise UserError("a prompt needs at least one token")
        if unknown := [one for one in ids if not 0 <= one < entrant.tokenizer.encoder.size()]:
            raise UserError(f"{unknown[0]} is not a token id of this model")
        refuse(None, len(ids))
        return Question(row.id, "", None, list(ids), [])
    # But for the likelihood of references, which a question does not have.
    changes = {"tasks": {task: TaskPrediction(max_new_tokens=limit)}, "likelihood": False, "held_out": ()}
    try:
        return Reader(entrant.parameters.model_copy(update=changes), asking, longest).question(task, row)
    except UserError as error:
        refuse(error.problems[0].where, _length(asking, row))
        raise


def _length(asking: Any, row: Row) -> int:
    """The number of tokens in the prompt of ROW; 0 if it cannot be rendered."""
    try:
        return len(asking.ids([row])[0])
    except UserError:
        return 0


def serve(lines: Iterator[str], say: Say, interruption: Interruption) -> None:
    """Answer the questions in LINES, the first of which describes the models."""
    request = json.loads(next(lines))
    numerics.begin(request["numerics"])
    entrants = {entrant.name: entrant for entrant in map(Entrant.of, request["models"])}
    from stages.models.folders import prepare_process

    prepare_process(request["threads"])
    answering = Answering(entrants, say, interruption)
    for entrant in entrants.values():
        say({"event": "loading", "model": entrant.name})
        answering.models.of(entrant)
        # What a spec and its files cannot give is an error now, not at the first question.
        _ = entrant.asking, entrant.ends
    say({"event": "ready"})
    # Lines are read while answers are generated: one of them may cancel an answer.
    batches: SimpleQueue[list[dict[str, Any]] | None] = SimpleQueue()
    Thread(target=_sort, args=(lines, batches, interruption), daemon=True).start()
    while (questions := batches.get()) is not None:
        try:
            answering.answer(questions)
        except Exception as error:
            traceback.print_exc()
            say({"event": "failed", "text": f"{type(error).__name__}: {error}"})
        say({"event": "done"})


def _sort(lines: Iterator[str], batches: "SimpleQueue[list[dict[str, Any]] | None]", interruption: Interruption) -> None:
    """Hand on each batch of questions in LINES, and take note of cancelled ones."""
    for line in lines:
        said = json.loads(line)
        if "cancel" in said:
            interruption.cancelled.add(said["cancel"])
        else:
            batches.put(said["ask"])
    batches.put(None)


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
