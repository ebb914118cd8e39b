"""A conversation with one or several models: what each was told and answered, and the commands between questions."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.errors import UserError, did_you_mean
from engine.rows.answers import Answerer, Model
from engine.rows.questions import identity_of, question_row

Message = Mapping[str, Any]
COMMANDS = {
    "/switch": ("NAME …", "ask only these models; without names, all"),
    "/system": ("TEXT", "set the system prompt, and begin anew; without text, none"),
    "/new": ("", "begin a new conversation"),
    "/raw": ("", "show the tokens of the last answers, and what a training would learn of them"),
    "/save": ("FILE", "append the conversations to a JSONL file, as rows of a task"),
    "/help": ("", "show these commands"),
    "/quit": ("", "end; so does ^D. ^C ends an answer"),
}


@dataclass
class Talk:
    """A conversation with MODELS; `show` is called with a model and each piece of its answer."""

    answerer: Answerer
    models: Sequence[Model]
    show: Callable[[Model, Mapping[str, Any]], None]
    task: str | None = None
    max_new_tokens: int | None = None
    system: str | None = None
    """The system prompt in place of those of the tasks."""
    active: list[Model] = field(default_factory=list)
    said: dict[str, list[Message]] = field(default_factory=dict)
    """The messages of each model's conversation, by its name, without the system prompt."""

    def __post_init__(self) -> None:
        self.active = list(self.models)
        self.said = {model.name: [] for model in self.models}

    def ask(self, text: str) -> None:
        """Let every active model answer TEXT; an answer that was interrupted stays in the conversation as far as it came."""
        for model in self.active:
            row = self._row(model, text)
            for event in self._events(model, row, stream="text"):
                self.show(model, event)
                if event["event"] == "answer":
                    self.said[model.name] += [{"role": "user", "content": text}, {"role": "assistant", "content": event["answer"]}]

    def _events(self, model: Model, row: Mapping[str, Any], **more: Any) -> Iterator[dict[str, Any]]:
        return self.answerer.ask(model, model.task(self.task), row, ("question", None), max_new_tokens=self.max_new_tokens, **more)

    def system_of(self, model: Model) -> str | None:
        """The system prompt of MODEL: the one that was set, else that of its task."""
        return model.systems.get(model.task(self.task)) if self.system is None else self.system or None

    def _row(self, model: Model, text: str) -> dict[str, Any]:
        """The question TEXT to MODEL, as a row of a task."""
        if not self.said[model.name]:
            return question_row(text, self.system_of(model))
        # The last answer of a row is its reference, which a question does not have.
        messages = [*self._messages(model), {"role": "user", "content": text}, {"role": "assistant", "content": ""}]
        return {"id": identity_of(text), "group": "", "messages": messages}

    def _messages(self, model: Model) -> list[Message]:
        """The conversation of MODEL so far, after its system prompt."""
        system = self.system_of(model)
        return [*([{"role": "system", "content": system}] if system else []), *self.said[model.name]]

    def conversations(self) -> Iterator[dict[str, Any]]:
        """The conversation of every active model that has one, as a row: `messages` and `model`."""
        for model in self.active:
            if self.said[model.name]:
                yield {"messages": self._messages(model), "model": model.name}

    def command(self, line: str) -> str:
        """Run the command LINE, which begins with a slash; returns what to print. Raises UserError for an unknown command or name."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/switch":
                return self._switch(rest.split())
            case "/system":
                self.system = rest
                return self._begin(f"system prompt: {rest}" if rest else "no system prompt")
            case "/new":
                return self._begin("a new conversation")
            case "/raw":
                return "\n".join(self._raw())
            case "/save":
                return self._save(rest)
            case "/help":
                return "\n".join(f"{f'{name} {values}':16}{what}" for name, (values, what) in COMMANDS.items())
        raise UserError(f"unknown command {name}", hint=did_you_mean(name, COMMANDS))

    def _begin(self, what: str) -> str:
        self.said = {model.name: [] for model in self.models}
        return what

    def _switch(self, names: Sequence[str]) -> str:
        by_name = {model.name: model for model in self.models}
        if unknown := next((name for name in names if name not in by_name), None):
            raise UserError(f"no model '{unknown}' here", hint=did_you_mean(unknown, by_name))
        self.active = [by_name[name] for name in names] or list(self.models)
        return f"asking {', '.join(model.name for model in self.active)}"

    def _save(self, file: str) -> str:
        rows = list(self.conversations())
        if not file or not rows:
            raise UserError("nothing to save" if file else "/save needs a file", hint="ask something first" if file else "/save talk.jsonl")
        path = Path(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as opened:
                opened.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}") from error
        return f"{len(rows)} {'conversation' if len(rows) == 1 else 'conversations'} added to {file}"

    def _raw(self) -> Iterator[str]:
        """The tokens of each active model's last question and answer; generates the answer again, which gives the same."""
        for model in self.active:
            messages = self.said[model.name]
            if not messages:
                continue
            self.said[model.name] = messages[:-2]
            try:
                row = self._row(model, messages[-2]["content"])
                *_, event = self._events(model, row, raw=True)
            finally:
                self.said[model.name] = messages
            yield f"{model.name}: what it read, and [what it generated]" if event["event"] == "answer" else f"{model.name}: {event}"
            if event["event"] == "answer":
                yield from _shown(event["raw"])


def _shown(raw: Mapping[str, Any]) -> Iterator[str]:
    """The lines for the tokens of an answer, and for those of a training row with it."""
    yield _line(raw["tokens"], "generated")
    training = raw.get("training") or {}
    if rows := [training["tokens"], *training["more_tokens"]] if "tokens" in training else []:
        yield "as a row of its training, with [what is supervised]"
        yield from (_line(row, "supervised") for row in rows)
    elif reason := training.get("no_tokens"):
        yield f"a training would {'fail at' if training['fails'] else 'leave out'} this row: {reason}"
    yield from training.get("notes", ())


def _line(tokens: Sequence[Mapping[str, Any]], marked: str) -> str:
    """Tokens one behind the other, escaped and separated by a bar; in brackets where they are MARKED."""
    return "|".join(f"[{_visible(one['text'])}]" if one[marked] else _visible(one["text"]) for one in tokens)


def _visible(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
