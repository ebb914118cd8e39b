"""What the body of a request asks for: OpenAI's chat completions and completions, checked, as questions to a model.

Source: https://platform.openai.com/docs/api-reference. Values that would change an answer and are not supported are refused, not ignored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.core.errors import did_you_mean
from engine.rows.questions import identity_of, question_row

if TYPE_CHECKING:
    from engine.serving.served import Choice, Served


class Refused(Exception):
    """A request that gets no answer: HTTP status and the API's error object."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def as_data(self) -> dict[str, Any]:
        """The API's error object."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


_Stop = Annotated[str, Field(min_length=1)]


class Body(BaseModel):
    """What both endpoints take; `top_k`, `task` and `row_id` are extensions."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    ignored: ClassVar[frozenset[str]] = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
    """Keys that change no answer."""
    neutral: ClassVar[Mapping[str, Sequence[Any]]] = {"frequency_penalty": [0], "presence_penalty": [0], "logit_bias": [{}]}
    """Keys that are not supported, with the values that change nothing."""

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: int | None = Field(None, ge=1, le=16)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    task: str | None = None
    row_id: str | None = None

    @property
    def stops(self) -> list[str]:
        """The stop texts."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def sampling(self) -> dict[str, Any]:
        """What is set otherwise than by the experiment's decoding."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "seed": self.seed}
        return {name: value for name, value in given.items() if value is not None}


class Tool(BaseModel):
    """A tool, as chat templates take it."""

    model_config = ConfigDict(extra="allow")
    type: Literal["function"]
    function: dict[str, Any]


class ChatBody(Body):
    """The body of `/v1/chat/completions`."""

    ignored: ClassVar[frozenset[str]] = Body.ignored | {"parallel_tool_calls"}
    neutral: ClassVar[Mapping[str, Sequence[Any]]] = {
        **Body.neutral,
        **{"response_format": [{"type": "text"}], "modalities": [["text"]], "tool_choice": ["auto", "none"]},
    }

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = None
    tool_choice: str | None = None


class CompletionBody(Body):
    """The body of `/v1/completions`."""

    neutral: ClassVar[Mapping[str, Sequence[Any]]] = {**Body.neutral, "echo": [False], "suffix": [""], "best_of": [1]}

    prompt: str | list[str] | list[int] | list[list[int]] = Field(union_mode="left_to_right")
    logprobs: int | None = Field(None, ge=0, le=5)


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    served: "Served"
    name: str
    """The model's name as the request has it."""
    stream: bool
    usage: bool
    """Whether a stream ends with the usage."""
    tools: bool
    logprobs: bool
    questions: list[dict[str, Any]] = field(default_factory=list)
    """One for each choice, in order, as `stages.answering` takes them."""


def chat(body: Any, choice: "Choice") -> Asked:
    """The request of a chat completion; raises Refused."""
    asked = _checked(ChatBody, body)
    served, task = _model(asked, choice)
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refused(400, "top_logprobs needs logprobs = true", param="top_logprobs")
    tools = [tool.model_dump() for tool in asked.tools or []] if asked.tool_choice != "none" else []
    row = _row([_message(number, message) for number, message in enumerate(asked.messages)], tools, served.model.systems.get(task))
    more = {"logprobs": asked.top_logprobs or 0} if asked.logprobs else {}
    limit = asked.max_completion_tokens or asked.max_tokens
    questions = _questions(asked, served, task, [row], limit, more)
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return Asked(served, asked.model, bool(asked.stream), usage, bool(tools), bool(asked.logprobs), questions)


def completion(body: Any, choice: "Choice") -> Asked:
    """The request of a completion: prompts, texts or token ids, continued as they stand; raises Refused."""
    asked = _checked(CompletionBody, body)
    served, task = _model(asked, choice)
    given = asked.prompt
    prompts: list[Any] = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not prompts:
        raise Refused(400, "prompt must not be empty", param="prompt")
    rows = []
    for prompt in prompts:
        text = prompt if isinstance(prompt, str) else json.dumps(prompt)
        rows.append(question_row(text, None) | ({} if isinstance(prompt, str) else {"ids": prompt}))
    more = {"plain": True} | ({} if asked.logprobs is None else {"logprobs": asked.logprobs})
    # OpenAI's default for this endpoint, 16 tokens, is not taken: the task's limit is part of how the model was evaluated.
    questions = _questions(asked, served, task, rows, asked.max_tokens, more)
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return Asked(served, asked.model, bool(asked.stream), usage, False, asked.logprobs is not None, questions)


_B = TypeVar("_B", bound=Body)


def _checked(kind: type[_B], body: Any) -> _B:
    """BODY as KIND; raises Refused for what is missing, wrong, unknown or not supported."""
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    # Clients write null for what they leave at its default.
    given = {key: value for key, value in body.items() if value is not None and key not in kind.ignored}
    for key, neutral in kind.neutral.items():
        if key in given and given[key] not in neutral:
            what = f"{key} = {json.dumps(given[key])} is not supported; supported: {', '.join(map(json.dumps, neutral))}"
            raise Refused(400, what, "unsupported_parameter", key)
        if key not in kind.model_fields:
            given.pop(key, None)
    if unknown := next((key for key in given if key not in kind.model_fields), None):
        hint = did_you_mean(unknown, kind.model_fields)
        raise Refused(400, f"unknown parameter '{unknown}'" + (f": {hint}" if hint else ""), "unknown_parameter", unknown)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        # Of the alternatives for a value, the one that fails by its content is nearer than those of another type.
        first = min(error.errors(include_url=False), key=lambda one: one["type"].endswith("_type"))
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained-", "list[")))
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise Refused(400, f"{place}: {first['msg']}", code, str(first["loc"][0])) from None


def _model(asked: Body, choice: "Choice") -> "tuple[Served, str]":
    """The model that a request names, and the task whose system prompt and token limit apply."""
    served = choice.of(asked.model)
    if served is None:
        hint = did_you_mean(asked.model, [name for one in choice.models for name in one.ids])
        raise Refused(404, f"the model '{asked.model}' is not served here; {hint}", "model_not_found", "model")
    if asked.task is not None and asked.task not in served.model.tasks:
        hint = did_you_mean(asked.task, served.model.tasks)
        raise Refused(400, f"{served.model.name} is not evaluated on task '{asked.task}'; {hint}", "invalid_value", "task")
    return served, asked.task or served.model.tasks[0]


def _message(number: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as rows have it: its content as text, and no keys without a value."""
    content = message.get("content")
    if isinstance(content, list):
        if strange := next((part for part in content if not isinstance(part, dict) or part.get("type") != "text"), None):
            kind = strange.get("type") if isinstance(strange, dict) else strange
            raise Refused(400, f"messages[{number}] has a part of type {kind!r}; only text is supported", "invalid_value", "messages")
        content = "".join(str(part.get("text", "")) for part in content)
    role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
    return {key: value for key, value in message.items() if value is not None} | {"role": role, "content": content}


def _row(messages: list[dict[str, Any]], tools: list[dict[str, Any]], system: str | None) -> dict[str, Any]:
    """MESSAGES as the row of a task; without a system message, with the prompt SYSTEM of the task; an empty one stands for none."""
    if messages[-1]["role"] not in ("user", "tool"):
        raise Refused(400, f"the last message must be of the user or of a tool, got {messages[-1]['role']!r}", "invalid_value", "messages")
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    text = messages[-1]["content"]
    if len(messages) == 1 and not tools and isinstance(text, str) and messages[0].keys() == {"role", "content"}:
        return question_row(text, system)
    first = [{"role": "system", "content": system}] if system else []
    # The last answer of a row is its reference, which a question does not have.
    whole = [*first, *messages, {"role": "assistant", "content": ""}]
    return {"id": identity_of(str(text)), "group": "", "messages": whole} | ({"tools": tools} if tools else {})


def _questions(
    asked: Body, served: "Served", task: str, rows: Sequence[dict[str, Any]], limit: int | None, more: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """`n` questions for each of ROWS; the first draws as `engine ask` does, the others have draws of their own."""
    found = []
    for number, row in enumerate(rows):
        ids = row.pop("ids", None)
        for draw in range(asked.n or 1):
            identity = asked.row_id or row["id"]
            question = {
                "model": served.model.name,
                "task": task,
                "row": row | {"id": f"{identity}#{draw}" if draw else identity},
                "where": ("messages" if isinstance(asked, ChatBody) else f"prompt[{number}]", None),
                "max_new_tokens": limit,
                "sampling": asked.sampling,
                "stop": asked.stops,
                "stream": "answer" if asked.stream else None,
                **more,
            }
            found.append(question | ({"ids": ids} if ids is not None else {}))
    return found
