"""llama.cpp's server with a GGUF file, asked over HTTP on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from engine.core.errors import UserError
from stages.export.gguf.files import largest, tensor_names, values_of
from stages.export.runtimes import llama_process
from stages.export.runtimes.base import MOST, Chat, Said
from stages.models.folders import json_object

_HUGE = 1e9
"""A bias that makes any token certain."""


class LlamaCpp:
    """A server of llama.cpp."""

    name = "llama.cpp"

    def __init__(self, file: Path, address: str, trained: Path) -> None:
        self._file, self._address, self._trained = file, address, trained
        self._opener = build_opener(ProxyHandler({}))

    @cached_property
    def template(self) -> str | None:
        """The chat template in the file; the server would fall back to one of its own."""
        return values_of(self._file).get("tokenizer.chat_template")

    @cached_property
    def positions(self) -> Mapping[str, Any]:
        """Those of the file: Llama 3's scaling is a tensor of factors."""
        values, names = values_of(self._file), tensor_names(self._file)
        architecture = values["general.architecture"]
        kind = values.get(f"{architecture}.rope.scaling.type", "none")
        kind = "llama3" if "rope_freqs.weight" in names else "default" if kind == "none" else kind
        numbers = {"factor": f"{architecture}.rope.scaling.factor", "base frequency": f"{architecture}.rope.freq_base"}
        found = {name: float(values[key]) for name, key in numbers.items() if key in values}
        if kind == "llama3":
            found["factor"] = largest(self._file, "rope_freqs.weight")
        # llama.cpp's default.
        return {"kind": kind, "base frequency": 10000.0, **found}

    @cached_property
    def output_layer(self) -> str | None:
        """A file without the matrix shares that of the embeddings."""
        tied = json_object(self._trained / "config.json").get("tie_word_embeddings", True)
        lost = not tied and "output.weight" not in tensor_names(self._file)
        return "the file has no matrix of the output layer, which the trained model has" if lost else None

    def read_text(self, text: str) -> list[int]:
        """The ids that the server makes of a prompt given as TEXT."""
        return list(self._post("tokenize", content=text, add_special=True, parse_special=True)["tokens"])

    def read_chat(self, chat: Chat) -> list[int]:
        """The ids that the server makes of CHAT."""
        tools = {"tools": list(chat.tools)} if chat.tools else {}
        return self.read_text(self._post("apply-template", messages=list(chat.messages), **tools)["prompt"])

    def answer(self, prompt: Sequence[int], max_new_tokens: int) -> Said:
        """The greedy answer after PROMPT."""
        found = self._complete(prompt, n_predict=max_new_tokens)
        stopped = found["stop_type"] == "eos"
        # The end token is among the tokens.
        return Said(tuple(found["tokens"][:-1] if stopped else found["tokens"]), stopped)

    def next_tokens(self, prompt: Sequence[int]) -> dict[int, float]:
        """The largest log-probabilities of the token after PROMPT."""
        # The server leaves out the probabilities of an end token, so it is made to say another one; they are those before the bias.
        found = self._complete(prompt, n_predict=1, n_probs=MOST, logit_bias=[[self._letter, _HUGE]])
        top = found["completion_probabilities"][0]["top_logprobs"]
        return {one["id"]: one["logprob"] for one in top}

    @cached_property
    def _letter(self) -> int:
        return self.read_text("a")[-1]

    def stops_at(self, token: int) -> bool:
        """Whether the server ends an answer at TOKEN: it is made to say it."""
        return bool(self._complete([token], n_predict=2, logit_bias=[[token, _HUGE]])["stop_type"] == "eos")

    def _complete(self, prompt: Sequence[int], **more: Any) -> Any:
        return self._post("completion", prompt=list(prompt), temperature=0.0, return_tokens=True, cache_prompt=False, **more)

    def _post(self, path: str, **body: Any) -> Any:
        asked = Request(f"{self._address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with self._opener.open(asked) as reply:
                return json.load(reply)
        except HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            raise UserError(f"llama.cpp refuses a request to {self._file.name}: {_message(said)}") from None
        except (URLError, OSError) as error:
            raise UserError(f"llama.cpp ended while it ran {self._file.name}: {error}", hint=_HINT) from None


_HINT = "it may not support this model; export merged weights"


def _reason(log: str) -> str:
    """The first error in llama.cpp's LOG, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.partition(" E ")[2].strip() for line in lines if " E " in line]
    return (errors or lines[-1:] or ["it gave no reason"])[0]


def _message(said: str) -> str:
    try:
        return str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return said.strip()[:200]


@contextmanager
def llama_cpp(file: Path, adapter: Path | None, trained: Path, context: int, threads: int | None) -> Iterator[LlamaCpp]:
    """A server with the model in FILE, with the LoRA in ADAPTER on it, exported from the folder TRAINED, for at
    most CONTEXT tokens; raises UserError if it cannot run it."""
    request = {"model": str(file), "adapter": str(adapter or ""), "context": context, "threads": threads or os.cpu_count() or 1}
    # A file, since a pipe that nobody reads would fill up.
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", llama_process.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            address = process.stdout.readline().strip()
            if not address:
                process.wait()
                log.seek(0)
                raise UserError(f"llama.cpp cannot run {file.name}: {_reason(log.read())}", hint=_HINT)
            yield LlamaCpp(file, address, trained)
        finally:
            process.kill()
            process.wait()
