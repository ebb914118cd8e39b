"""What an endpoint answered, read strictly: a body that is no chat completion is no answer."""

from dataclasses import dataclass

from pydantic import BaseModel, Field


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer with all that its worth is judged by, and what it took."""

    text: str
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def parse(body: bytes | str) -> Reply:
    """The first choice of a chat completion; raises ValueError (pydantic's) where BODY is none."""
    completion = _Completion.model_validate_json(body)
    choice, usage = completion.choices[0], completion.usage or _Usage()
    message = choice.message
    return Reply(message.content or "", message.refusal, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens)
