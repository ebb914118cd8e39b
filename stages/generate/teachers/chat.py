"""Completions by a chat model behind an API: any endpoint that speaks OpenAI's protocol."""

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
    model: str = recipe(description="The model's name, as the endpoint knows it.", min_length=1)
    base_url: str = recipe(
        "https://api.openai.com/v1",
        "The endpoint; it decides who answers, so another one means other answers.",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
    )
    temperature: float | None = recipe(None, "Sampling temperature; none given: the endpoint's own.", ge=0, le=2)
    top_p: float | None = recipe(None, "Nucleus sampling's share; none given: the endpoint's own.", gt=0, le=1)
    max_tokens: int | None = recipe(None, "The answer is cut off after this many tokens; none given: the endpoint's own bound.", gt=0)
    sampling_seed: int | None = recipe(None, "The request's `seed`, for endpoints that sample repeatably.", ge=0, lt=2**63)
    stop: tuple[str, ...] = recipe((), "Texts that end the answer.", max_length=4)
    extra: dict[str, Any] = recipe({}, "More fields of the request's body, as the endpoint documents them.")
    json_schema: dict[str, Any] | None = recipe(None, "JSON Schema of the answer; an answer that breaks it is asked for once more.")
    json_field: str | None = recipe(None, "The property of the JSON answer that is the completion; none given: the JSON itself.")
    refusals: tuple[str, ...] = recipe((), "Regular expressions; an answer in which one is found counts as refused.")
    finish_reasons: tuple[str, ...] = recipe(
        (),
        "Further values of `finish_reason` with which the endpoint ends a complete answer, beside `stop` and its known synonyms; "
        "`none` stands for an answer without one. An answer that ends otherwise becomes no row.",
    )
    on_refusal: Policy = recipe("drop", "What happens to a row whose question is refused: ask again, leave it out (counted), or fail.")
    on_empty: Policy = recipe("drop", "What happens to a row whose answer is empty, or no text (a tool call, an image).")
    on_cut_off: Policy = recipe(
        "drop",
        "What happens to a row whose answer is not known to be complete: it reached max_tokens, or ends with an unknown `finish_reason`.",
    )
    on_invalid: Policy = recipe("drop", "What happens to a row whose JSON is invalid twice.")
    attempts: int = recipe(2, "How often a row is asked in all where a policy says to ask again; then it is left out.", gt=0, le=20)
    api_key_env: str | None = resource(
        None, "The environment variable that holds the API key; none given: no key is sent.", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"
    )
    requests_per_minute: int | None = resource(None, "At most so many requests in any minute.", gt=0)
    tokens_per_minute: int | None = resource(None, "At most so many tokens, prompts and answers, in any minute.", gt=0)
    in_flight: int = resource(16, "Requests under way at once.", gt=0, le=1000)
    timeout: float = resource(120.0, "Seconds until a request without a whole answer counts as failed.", gt=0)
    retries: int = resource(8, "How often one request is tried again after failures; too many requests (429) are no failure.", ge=0)
    give_up_after: float = resource(900.0, "Seconds without a single answer after which the step fails.", gt=0)
    max_requests: int | None = resource(None, "A run of the step stops after so many requests; what was answered is kept.", gt=0)
    max_total_tokens: int | None = resource(None, "A run of the step stops before it uses more tokens.", gt=0)
    max_cost: float | None = resource(None, "A run of the step stops before it costs more.", gt=0)
    input_price: float | None = resource(None, "Price of a million prompt tokens, for the plan and for max_cost.", ge=0)
    output_price: float | None = resource(None, "Price of a million tokens of answers.", ge=0)
    batch: bool = resource(False, "Ask through the provider's batch API: cheaper, and hours later.")
    batch_poll: float = resource(60.0, "Seconds between two looks at a batch.", gt=0)

    def columns(self) -> tuple[str, ...]:
        """The columns of a row that the answer depends on, beside the prompt."""
        return ()

    def answers(self, questions: Iterable[Question], job: Job, tally: Tally) -> Iterator[Answer]:
        """The model's answer to each question, in order; raises UserError where the endpoint, the key or the budget ends it."""
        from stages.generate.asking.teach import answers

        return answers(self, questions, job, tally)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_cost is not None and (self.input_price is None or self.output_price is None):
            raise _problem("max_cost", "max_cost needs input_price and output_price")
        if self.json_field is not None and self.json_schema is None:
            raise _problem("json_field", "json_field needs json_schema")
        if taken := sorted(set(self.extra) & {*_OWN, *(name for name in type(self).model_fields if name in _BODY)}):
            raise _problem("extra", f"{', '.join(taken)} is no extra field: it has its own place in the spec, or is not supported")
        self._check_words()
        self._check_patterns()
        self._check_schema()
        return self

    def _check_words(self) -> None:
        if wrong := [word for word in self.finish_reasons if not any(letter.isalnum() for letter in word)]:
            raise _problem("finish_reasons", f"{wrong[0]!r} is no finish_reason; 'none' stands for an answer without one")

    def _check_patterns(self) -> None:
        import re

        for pattern in self.refusals:
            try:
                re.compile(pattern)
            except re.error as error:
                raise _problem("refusals", f"{pattern!r} is no regular expression: {error}") from None

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
