"""One logger in a separate process, which reads messages from stdin, one JSON value per line.

So a logger that raises, hangs or loads other libraries cannot affect the training: a failure is reported once on stderr, with a hint.
Lines are `{"parameters": {...}}`, `{"step": 7, "values": {...}}`, `{"summary": {...}, "digest": "..."}`
(of a run that has ended: values of the evaluation, the content address), and at the end `{"close": "finished" | "failed"}`.
"""

import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TextIO

DECIDES_NO_BYTES = True
"""Not part of a step's identity: processes and their supervision do not affect results."""

RUN = ".run"
"""Suffix of the file in the live folder with the id of a logger's run, to which evaluation and digest are added."""

STORE = ".adapterbuild/mlruns"
"""MLflow's default folder, without a tracking URI and a database."""

_PATIENCE = 20
"""Seconds for a logger to exit after the training has died."""

_LONGEST = 500
_MOST = 100
"""MLflow's limits on the characters of a parameter's value (servers allow more) and on parameters per request."""

_HINTS = {
    "wandb": "log in (wandb login), set WANDB_MODE=offline, or leave it out of resources.report_to",
    "mlflow": "set MLFLOW_TRACKING_URI to a server or a folder (file:...), or leave it out of resources.report_to",
    "tensorboard": "leave it out of resources.report_to",
}


class Sink(Protocol):
    """A destination of a training's messages."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log the recipe, flattened."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the VALUES of STEP."""

    def summary(self, values: Mapping[str, float], digest: str | None) -> None:
        """Log values of the finished training, and its content address."""

    def close(self, whole: bool) -> None:
        """Finish the log; WHOLE: the training has finished."""


class TensorBoard:
    """TensorBoard's event files, in the live folder."""

    def __init__(self, folder: Path, step: str, run: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run = ""
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log the recipe, flattened."""
        self._writer.add_text("recipe", "\n".join(f"    {name} = {value}" for name, value in values.items()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the VALUES of STEP."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def summary(self, values: Mapping[str, float], digest: str | None) -> None:
        """Log values of the finished training, and its content address."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, 0)
        if digest:
            self._writer.add_text("digest", digest)

    def close(self, whole: bool) -> None:
        """Finish the log."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, configured by its environment variables."""

    def __init__(self, folder: Path, step: str, run: str | None) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(name=step, dir=str(folder), **({"id": run, "resume": "allow"} if run else {}))
        self.run = str(self._run.id)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log the recipe, flattened."""
        self._run.config.update(dict(values))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the VALUES of STEP."""
        self._run.log(dict(values), step=step)

    def summary(self, values: Mapping[str, float], digest: str | None) -> None:
        """Log values of the finished training, and its content address."""
        self._run.summary.update(dict(values) | ({"digest": digest} if digest else {}))

    def close(self, whole: bool) -> None:
        """Finish the log."""
        self._run.finish(exit_code=0 if whole else 1)


class MLflow:
    """A run of MLflow, configured by its environment variables.

    Without them and without a database (`mlflow-skinny`), it is stored in a folder of the workspace. MLflow 3.7 and later require an opt-in
    for folders, which is set here.
    """

    def __init__(self, folder: Path, step: str, run: str | None) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        if "MLFLOW_TRACKING_URI" not in os.environ and find_spec("sqlalchemy") is None:
            os.environ["MLFLOW_TRACKING_URI"] = Path(STORE).absolute().as_uri()
            ignore = Path(STORE).parent / ".gitignore"
            if not ignore.exists():
                # Runs hold times and machines, and are not for git, whatever the workspace's own .gitignore says.
                ignore.parent.mkdir(exist_ok=True)
                ignore.write_text("*\n", "utf-8")
        mlflow = importlib.import_module("mlflow")
        self._client = mlflow.MlflowClient()
        self._resumed = run is not None
        self.run = run or str(mlflow.start_run(run_name=step).info.run_id)
        self._end = mlflow.end_run

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log the recipe, flattened."""
        from mlflow.entities import Param

        found = [Param(name, str(value)[:_LONGEST]) for name, value in values.items()]
        for start in range(0, len(found), _MOST):
            self._client.log_batch(self.run, params=found[start : start + _MOST])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the VALUES of STEP."""
        for name, value in values.items():
            self._client.log_metric(self.run, _plain(name), value, step=step)

    def summary(self, values: Mapping[str, float], digest: str | None) -> None:
        """Log values of the finished training, and its content address."""
        self.log(0, values)
        if digest:
            self._client.set_tag(self.run, "digest", digest)

    def close(self, whole: bool) -> None:
        """Finish the log; a run that had ended before keeps its status."""
        if not self._resumed:
            self._end("FINISHED" if whole else "FAILED")


def _plain(name: str) -> str:
    """NAME with the characters that MLflow supports."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


SINKS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of VALUE with their paths, joined by dots."""
    if isinstance(value, Mapping) and (value or not name):
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def main(arguments: list[str]) -> int:
    """Forward messages from stdin to the logger NAME for STEP; returns 1 if it fails."""
    name, folder, step = arguments[0], Path(arguments[1]), arguments[2]
    # These signals stop the training; this process exits after it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    told = os.fdopen(os.dup(2), "w", encoding="utf-8")
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _keep_to_itself()
    doing = "start"
    try:
        sink = _open(name, folder, step)
        whole = False
        doing = "take what it is told"
        for line in lines:
            whole = _tell(sink, json.loads(line)) or whole
        doing = "end"
        sink.close(whole)
    except BaseException as error:
        # A library may raise anything, including SystemExit.
        _say(told, name, doing, error)
        os._exit(1)
    # Without the libraries' exit handlers, which may wait for a server.
    os._exit(0)


def _keep_to_itself() -> None:
    """Silence the libraries' output, and give them no input."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def _end_with(parent: int) -> None:
    """End this process some time after its parent has died, in case it hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(_PATIENCE)
    os._exit(1)


def _open(name: str, folder: Path, step: str) -> Sink:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{RUN}"
    sink: Any = SINKS[name](folder, step, path.read_text("utf-8") if path.is_file() else None)
    path.write_text(sink.run, "utf-8")
    opened: Sink = sink
    return opened


def _tell(sink: Sink, told: Mapping[str, Any]) -> bool:
    """Forward one message; returns whether it is the last."""
    if "parameters" in told:
        sink.parameters(told["parameters"])
    elif "step" in told:
        sink.log(told["step"], told["values"])
    elif "summary" in told:
        sink.summary(told["summary"], told.get("digest"))
    return told.get("close") == "finished"


def _say(stream: TextIO, name: str, doing: str, error: BaseException) -> None:
    said = " ".join(str(error).split())
    first = said if len(said) <= _LONGEST else said[:_LONGEST] + "..."
    text = f"{name} could not {doing}, and is told no more ({type(error).__name__}: {first}); the training goes on without it\n"
    stream.write(f"warning: {text}  hint: {_HINTS[name]}\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
