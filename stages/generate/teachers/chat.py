"""Completions from a chat model behind an OpenAI-compatible API."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Part, recipe, resource
from stages.generate.question import Answer, Question, Tally
from stages.process.job import Job

Policy = Literal["retry", "drop", "fail"]
_OWN = ("model", "messages", "response_format", "stream", "n")


class Chat(Part):
    """A chat model behind an OpenAI-compatible API; every answer is paid for once and kept in the workspace."""

    reports_progress: ClassVar[bool] = True

    kind: Literal["chat"] = "chat"
    model: str = recipe(description="The model's name at the endpoint.", min_length=1)
    base_url: str = recipe(
        "https://api.openai.com/v1",
        "Base URL of the endpoint; changing it requests all answers again.",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
    )
    temperature: float | None = recipe(None, "Sampling temperature; if unset, the endpoint's default.", ge=0, le=2)
    top_p: float | None = recipe(None, "Top-p of nucleus sampling; if unset, the endpoint's default.", gt=0, le=1)
    max_tokens: int | None = recipe(None, "Maximum tokens per answer; if unset, the endpoint's default.", gt=0)
    sampling_seed: int | None = recipe(None, "The request's `seed`, for endpoints with reproducible sampling.", ge=0, lt=2**63)
    stop: tuple[str, ...] = recipe((), "Stop sequences.", max_length=4)
    extra: dict[str, Any] = recipe({}, "Further fields of the request body, as documented by the endpoint.")
    json_schema: dict[str, Any] | None = recipe(None, "JSON Schema of the answer; an invalid answer is requested once more.")
    json_field: str | None = recipe(None, "Property of the JSON answer that becomes the completion; if unset, the whole JSON.")
    refusals: tuple[str, ...] = recipe((), "Regular expressions; an answer that matches one counts as refused.")
    finish_reasons: tuple[str, ...] = recipe(
        (),
        "Further `finish_reason` values of complete answers, in addition to `stop` and its known synonyms; "
        "`none` matches a missing value. Answers with other values are not used.",
    )
    on_refusal: Policy = recipe("drop", "Rows whose question is refused: ask again, leave the row out (counted), or fail.")
    on_empty: Policy = recipe(
        "drop", "Rows whose answer is empty or not text (a tool call, an image): ask again, leave the row out (counted), or fail."
    )
    on_cut_off: Policy = recipe(
        "drop",
        "Rows whose answer is not known to be complete: it reached max_tokens, or ends with an unknown `finish_reason`.",
    )
    on_invalid: Policy = recipe("drop", "Rows whose JSON answer is invalid twice: ask again, leave the row out (counted), or fail.")
    attempts: int = recipe(2, "Maximum requests per row if a policy is to ask again; then the row is left out.", gt=0, le=20)
    api_key_env: str | None = resource(
        None, "Environment variable with the API key; if unset, no key is sent.", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"
    )
    requests_per_minute: int | None = resource(None, "Maximum requests per minute.", gt=0)
    tokens_per_minute: int | None = resource(None, "Maximum tokens per minute, prompts and answers.", gt=0)
    in_flight: int = resource(16, "Maximum concurrent requests.", gt=0, le=1000)
    timeout: float = resource(120.0, "Seconds after which an unanswered request counts as failed.", gt=0)
    retries: int = resource(8, "Maximum retries of a failed request; rate limiting (429) does not count as a failure.", ge=0)
    give_up_after: float = resource(900.0, "Seconds without any answer after which the step fails.", gt=0)
    max_requests: int | None = resource(None, "Budget: maximum requests per run of the step; answers so far are kept.", gt=0)
    max_total_tokens: int | None = resource(None, "Budget: maximum tokens per run of the step.", gt=0)
    max_cost: float | None = resource(None, "Budget: maximum cost per run of the step.", gt=0)
    input_price: float | None = resource(None, "Price per million prompt tokens, for the plan and max_cost.", ge=0)
    output_price: float | None = resource(None, "Price per million answer tokens, for the plan and max_cost.", ge=0)
    batch: bool = resource(False, "Use the provider's batch API: cheaper, with answers hours later.")
    batch_poll: float = resource(60.0, "Seconds between two polls of a batch.", gt=0)

    def columns(self) -> tuple[str, ...]:
        """Columns of a row that the answer depends on, in addition to the prompt."""
        return ()

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The model's answer to each question, in order; raises UserError on permanent errors, a missing key or an exhausted budget."""
        from stages.generate.asking.teach import answers

        return answers(self, questions, job, tally)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_cost is not None and (self.input_price is None or self.output_price is None):
            raise _problem("max_cost", "max_cost needs input_price and output_price")
        if self.json_field is not None and self.json_schema is None:
            raise _problem("json_field", "json_field needs json_schema")
        if taken := sorted(set(self.extra) & {*_OWN, *(name for name in type(self).model_fields if name in _BODY)}):
            raise _problem("extra", f"{', '.join(taken)} cannot be set in extra: it has a separate key in the spec, or is not supported")
        self._check_words()
        self._check_patterns()
        self._check_schema()
        return self

    def _check_words(self) -> None:
        if wrong := [word for word in self.finish_reasons if not any(letter.isalnum() for letter in word)]:
            raise _problem("finish_reasons", f"{wrong[0]!r} is not a valid finish_reason; 'none' matches a missing value")

    def _check_patterns(self) -> None:
        import re

        for pattern in self.refusals:
            try:
                re.compile(pattern)
            except re.error as error:
                raise _problem("refusals", f"{pattern!r} is not a valid regular expression: {error}") from None

    def _check_schema(self) -> None:
        from stages.generate.asking.schema import Structure, Unreadable

        if self.json_schema is not None:
            try:
                Structure(self.json_schema, self.json_field)
            except Unreadable as error:
                raise _problem("json_schema", str(error)) from None


_BODY = ("temperature", "top_p", "max_tokens", "stop")


def _problem(field: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("chat", "{text}", {"text": text, "at": (field,)})
