"""Answers of built models to single questions, from a process of `stages` that loads them once."""

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import UserError, did_you_mean
from engine.core.graph import Step
from engine.identity.text import recipe_of
from engine.plan.project import Project
from engine.rows.inspection import spec_of
from engine.rows.preview import tokens_request, tokens_step
from engine.rows.questions import COMMAND, opening
from stages import generate, predict
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.models.folders import ADAPTER_CONFIG, json_object
from stages.process.parent import PARENT, named
from stages.tokens.encoder import CONFIG, TEMPLATE

if TYPE_CHECKING:
    from engine.spec.sections import Spec

TOKENS = 512
"""Maximum number of tokens of an answer by a model in a folder, for which no task sets one; less where its context has less room."""
ANSWER = "answer"
"""The task of models in folders."""
_HELD = ("test/", "validation/")


@dataclass(frozen=True)
class Model:
    """A model that is asked: its name, its tasks, and what the answering process needs of it."""

    name: str
    tasks: tuple[str, ...]
    systems: Mapping[str, str | None]
    """The system prompt of each task; None for a task without one, or with one that needs the columns of a row."""
    request: Mapping[str, Any]
    numerics: str
    threads: int | None

    def task(self, wanted: str | None) -> str:
        """The task WANTED, by default the first; raises UserError if this model is not evaluated on it."""
        if wanted is not None and wanted not in self.tasks:
            raise UserError(f"{self.name} is not evaluated on task '{wanted}'", hint=did_you_mean(wanted, self.tasks))
        return wanted or self.tasks[0]


def is_folder(target: str) -> bool:
    """Whether TARGET is the folder of a model or an adapter."""
    return any((Path(target) / name).is_file() for name in (ADAPTER_CONFIG, "config.json"))


def of_experiment(project: Project, target: str) -> Model:
    """The model of the experiment that TARGET names: its name, its spec, or the content address of its adapter.

    Raises UserError if there is none, or if it is not built.
    """
    spec = spec_of(project, target)
    step = project.graph[f"predict-{spec.name}"]
    inputs = {role: item for role, item in step.inputs.items() if not role.startswith(_HELD)}
    for item in inputs.values():
        if not (project.root / item.path).exists():
            raise UserError(f"not built: {item.path}", hint=f"run: engine build {item.producer}" if item.producer else None)
    parameters = step.parameters
    assert isinstance(parameters, predict.Parameters)
    tokens = _tokens(project, spec)
    request = {
        "name": spec.name,
        "parameters": recipe_of(parameters),
        "inputs": {role: str((project.root / item.path).absolute()) for role, item in inputs.items()},
        "tokenize": _anywhere(project, tokens) if tokens else None,
        "tasks": {task: found for task in parameters.tasks if (found := _generating(project, spec, task))},
    }
    tasks = tuple(parameters.tasks)
    resources = spec.experiment.resources
    systems = {task: _system(spec, task) for task in tasks}
    return Model(spec.name, tasks, systems, request, resources.numerics, resources.threads)


def _tokens(project: Project, spec: "Spec") -> Step | None:
    """A step that tokenizes rows as the training of SPEC does; None without a training."""
    mixture = spec.experiment.mixture
    return tokens_step(project, spec, mixture.tasks[0])[0] if mixture else None


def _generating(project: Project, spec: "Spec", task: str) -> dict[str, Any] | None:
    """What makes prompts of the columns of rows of TASK; None for conversations, which are questions as they are."""
    step = project.graph.find(spec.name, f"generate-{task}")
    if step is None or not isinstance(step.parameters, generate.Parameters) or step.parameters.teacher is None:
        return None
    inputs = {role: str((project.root / item.path).absolute()) for role, item in step.inputs.items()}
    return {"name": step.name, "parameters": recipe_of(step.parameters), "inputs": inputs}


def _anywhere(project: Project, step: Step) -> dict[str, Any]:
    request = tokens_request(step)
    return request | {"inputs": {role: str((project.root / path).absolute()) for role, path in request["inputs"].items()}}


def _system(spec: "Spec", task: str) -> str | None:
    """The system prompt of TASK, if it is the same for all rows."""
    system = spec.experiment.tasks[task].system
    return system if isinstance(system, str) and system and "{" not in system else None


def of_folder(target: str) -> Model:
    """The model in the folder TARGET, or the adapter there on the base that it names; raises UserError if the base is not here."""
    folder = Path(target).absolute()
    inputs = {"model": folder}
    if (folder / ADAPTER_CONFIG).is_file():
        inputs = {"model": _base(folder), "adapter": folder}
    template = next((path for path in (folder, inputs["model"]) if _has_template(path)), None)
    config = json_object(inputs["model"] / "config.json")
    text = (template / TEMPLATE).read_text("utf-8") if template and (template / TEMPLATE).is_file() else None
    parameters = predict.Parameters(
        tasks={ANSWER: predict.TaskPrediction(max_new_tokens=TOKENS)},
        format=Chat(template=text) if template else Plain(),
        encoder_decoder=bool(config.get("is_encoder_decoder")),
        unrendered="allow",
    )
    request = {
        "name": folder.name,
        "parameters": recipe_of(parameters),
        "inputs": {role: str(path) for role, path in inputs.items()},
        "tokenize": None,
        "limit_gives_way": True,
    }
    return Model(folder.name, (ANSWER,), {ANSWER: None}, request, "portable", None)


def _base(folder: Path) -> Path:
    """The folder of the base that the adapter in FOLDER names."""
    name = json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    for found in (folder / str(name), Path(str(name))):
        if name and (found / "config.json").is_file():
            return found.absolute()
    what = f"the adapter in {folder} is for {name}, which is no folder here" if name else f"the adapter in {folder} names no base"
    raise UserError(what, hint="engine adapters --fetch DIGEST --base-model place has its base; or set [model] adapter in a spec")


def _has_template(folder: Path) -> bool:
    return (folder / TEMPLATE).is_file() or bool(json_object(folder / CONFIG).get("chat_template"))


@dataclass
class Answerer:
    """The process that answers, with MODELS loaded; to be used in a `with` statement."""

    root: Path
    models: Sequence[Model]
    _process: "subprocess.Popen[str] | None" = field(default=None, init=False)
    _errors: Any = field(default=None, init=False)

    def __enter__(self) -> "Answerer":
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            COMMAND,
            cwd=self.root,
            env=os.environ | {PARENT: named()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            # ^C in a terminal goes to its whole group: it shall end an answer, not the process.
            process_group=0,
        )
        self._write(opening(self.models))
        try:
            while self._read()["event"] != "ready":
                pass
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, model: Model, task: str, row: Mapping[str, Any], where: tuple[str, int | None], **more: Any) -> Iterator[dict[str, Any]]:
        """Every event of the answer of MODEL to ROW: `text`, and at last `answer`, `left_out` or `error`.

        Until then ^C ends the answer; pressed again, it raises KeyboardInterrupt.
        """
        self._write({"ask": [{"model": model.name, "task": task, "row": row, "where": where, **more}]})
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            while (event := self._read())["event"] != "done":
                if event["event"] == "failed":
                    raise RuntimeError(f"the process that answers failed: {event['text']}")
                yield event
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        assert self._process
        self._process.send_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _write(self, value: object) -> None:
        assert self._process and self._process.stdin
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _read(self) -> dict[str, Any]:
        assert self._process and self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        found: dict[str, Any] = json.loads(line)
        return found

    def _fail(self) -> None:
        """Raise what the process said before it ended."""
        assert self._process
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()
        if found := re.search(r"^error: (.*)\Z", said, re.MULTILINE | re.DOTALL):
            raise UserError(found[1].rstrip())
        raise RuntimeError(f"the process that answers ended with status {self._process.returncode}:\n{said}")

    def _end(self) -> None:
        """End the process; what it was generating is lost."""
        assert self._process
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                stream.close()
