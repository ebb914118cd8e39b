"""The HTTP side of the server: routes, keys, sizes, streams, and clients that go away."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from engine.serving.bodies import Asked, Refused, chat, completion
from engine.serving.queueing import Full, Queue, Ticket
from engine.serving.replies import Reply
from engine.serving.served import Choice

LARGEST_BODY = 4 * 2**20
"""The size of the largest body of a request, in bytes."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Application:
    """The routes of a server for the models of CHOICE, which QUEUE answers; with a KEY, requests must have it."""

    choice: Choice
    queue: Queue
    key: str | None

    def asgi(self) -> Starlette:
        """The application for an ASGI server."""
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/models/{name:path}", self._guarded(self._model)),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/completions", self._guarded(self._completion), methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {Refused: _refused, HTTPException: _no_route, Exception: _broken}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """ENDPOINT for requests with the key only."""

        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
            if self.key is not None and not hmac.compare_digest(given.encode(), self.key.encode()):
                raise Refused(401, "this server needs its API key: Authorization: Bearer KEY", "invalid_api_key")
            return await endpoint(request)

        return guarded

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "in_flight": self.queue.in_flight, "answered": self.queue.answered})

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self.choice.as_data()})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if (served := self.choice.of(name)) is None:
            raise Refused(404, f"the model '{name}' is not served here", "model_not_found", "model")
        return JSONResponse(served.as_data(name))

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, chat(await _body(request), self.choice), True)

    async def _completion(self, request: Request) -> Response:
        return await self._answer(request, completion(await _body(request), self.choice), False)

    async def _answer(self, request: Request, asked: Asked, is_chat: bool) -> Response:
        try:
            tickets = self.queue.ask(asked.questions)
        except Full:
            raise Refused(429, f"{self.queue.most_waiting} requests are waiting; try again later", "queue_full") from None
        reply = Reply(asked, is_chat)
        try:
            if not asked.stream:
                whole = asyncio.ensure_future(_all(tickets))
                return JSONResponse(reply.whole(await _unless_gone(request, whole)))
            # An error before the first text has a status of its own.
            events = _interleaved(tickets)
            first = await _unless_gone(request, asyncio.ensure_future(anext(events)))
        except BaseException:
            self.queue.cancel(tickets)
            raise
        return StreamingResponse(self._stream(reply, tickets, first, events), media_type="text/event-stream")

    async def _stream(
        self, reply: Reply, tickets: Sequence[Ticket], first: tuple[int, Event], events: AsyncIterator[tuple[int, Event]]
    ) -> AsyncIterator[str]:
        """The events of a stream: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
        try:
            for choice in range(len(tickets)):
                yield _sent(reply.first(choice))
            answers: dict[int, Event] = {}

            async def all_events() -> AsyncIterator[tuple[int, Event]]:
                yield first
                async for more in events:
                    yield more

            async for choice, event in all_events():
                if event["event"] == "text":
                    yield _sent(reply.part(choice, event))
                else:
                    answers[choice] = event
                    yield _sent(reply.last(choice, event))
            if reply.asked.usage:
                yield _sent(reply.usage_chunk([answers[choice] for choice in sorted(answers)]))
            yield "data: [DONE]\n\n"
        except Refused as refused:
            yield _sent(refused.as_data())
        finally:
            self.queue.cancel(tickets)


async def _body(request: Request) -> Any:
    """The JSON of a request; raises Refused if it is none, or too large."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > LARGEST_BODY:
                raise Refused(413, f"the body has more than {LARGEST_BODY:,} bytes", "request_too_large")
    except ClientDisconnect:
        raise Refused(499, "the client has gone") from None
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not valid JSON: {error}", "invalid_json") from None


async def _all(tickets: Sequence[Ticket]) -> list[Event]:
    """The answers to TICKETS; raises Refused if there is none to one of them."""
    found = []
    for ticket in tickets:
        while (event := _checked(await ticket.events.get()))["event"] == "text":
            pass
        found.append(event)
    return found


async def _interleaved(tickets: Sequence[Ticket]) -> AsyncIterator[tuple[int, Event]]:
    """All events of TICKETS as they come, each with the number of its choice; raises Refused if there is no answer to one of them."""
    merged: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

    async def forward(choice: int, ticket: Ticket) -> None:
        event: Event = {"event": "text"}
        while event["event"] == "text":
            event = await ticket.events.get()
            merged.put_nowait((choice, event))

    tasks = [asyncio.create_task(forward(choice, ticket)) for choice, ticket in enumerate(tickets)]
    try:
        left = len(tickets)
        while left:
            choice, event = await merged.get()
            yield choice, _checked(event)
            left -= event["event"] != "text"
    finally:
        for task in tasks:
            task.cancel()


def _checked(event: Event) -> Event:
    """EVENT if it is an answer or a part of one; else raises Refused."""
    match event["event"]:
        case "text" | "answer":
            return event
        case "left_out" if event["left_out"] == "over length":
            raise Refused(400, "the prompt leaves no room for the answer in the model's context", "context_length_exceeded", "messages")
        case "left_out":
            raise Refused(400, f"this prompt is left out, as its experiment leaves out such rows: {event['left_out']}", "invalid_prompt")
        case "error":
            raise Refused(400, event["briefly"], "context_length_exceeded" if event["too_long"] else "invalid_prompt")
    raise Refused(500, event["text"], "internal_error")


async def _unless_gone(request: Request, answer: "asyncio.Future[Any]") -> Any:
    """What ANSWER gives; raises Refused if the client goes away before."""
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise Refused(499, "the client has gone")
        return answer.result()
    finally:
        for task in (answer, gone):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sent(data: Any) -> str:
    """DATA as an event of a stream; nothing for None."""
    return "" if data is None else f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _refused(request: Request, error: Refused) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {"retry-after": "1"} if error.status == 429 else None
    return JSONResponse(error.as_data(), error.status, headers)


async def _no_route(request: Request, error: HTTPException) -> Response:
    """An unknown path or a wrong method, in the API's shape."""
    what = f"{request.method} {request.url.path}: {error.detail.lower()}; served: /v1/models, /v1/chat/completions, /v1/completions"
    return JSONResponse(Refused(error.status_code, what).as_data(), error.status_code, error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse(Refused(500, f"{type(error).__name__}: {error}", "internal_error").as_data(), 500)
