"""Parses the errors of endpoints in their many formats: OpenAI, Azure, Google, gateways, web frameworks."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

_DEEPEST = 6  # nesting levels that are searched
_MOST = 400  # nested values that are searched

_SAYS = ("message", "msg", "detail", "error_description", "status_msg", "error_msg", "errors")
"""Keys of an error's message."""
_NAMES = ("code", "type", "status", "error_code", "error_type", "reason", "codeName")
"""Keys of an error's code or type."""

_CONTENT = frozenset(
    """
    contentfilter contentfiltered contentpolicy contentpolicyviolation contentpolicyviolationerror contentviolation contentblocked
    contentmoderation responsibleaipolicyviolation policyviolation prohibitedcontent promptblocked safety safetyerror
    moderation moderationerror moderationblocked inputmoderation outputmoderation sensitivewordsdetected datainspectionfailed
    guardrailviolation guardrailsviolation guardrailintervened
    """.split()
)
"""Error codes of content filters: other questions may still be answered."""

_CONTENT_WORDS = re.compile(
    # DeepSeek; Anthropic; Azure; LiteLLM; xAI; Moonshot; OpenAI (invalid_prompt), OpenRouter; DashScope; OpenAI (images); gateways.
    r"content exists risk|content.?filter(?:ing)? polic|content management policy|content.?policy.?violation|responsible.?ai.?policy"
    r"|violates (?:our )?usage guidelines|considered high risk|inappropriate content|safety (?:system|filter|guideline)"
    r"|(?:prompt|input|output|response|content) (?:was |has been |is )?(?:flagged|filtered)"
    r"|content (?:was |has been |is )?(?:blocked|moderated)|blocked by (?:\w+ )?(?:content|safety|moderation)",
    re.IGNORECASE,
)
"""Messages of content filters, for endpoints without an error code for them."""

_NO_CREDIT = """
    insufficientquota insufficientbalance insufficientcredit creditbalance billinghardlimit billingnotactive
    exceededcurrentquota paymentrequired
    """.split()
"""Substrings of error codes."""

_STATUSES: tuple[tuple[int, str], ...] = (
    (401, "authentication unauthorized unauthenticated invalidapikey apikeyinvalid incorrectapikey autherror"),
    (403, "permission forbidden accessdenied"),
    (404, "notfound doesnotexist unknownmodel invalidmodel"),
    (429, "ratelimit toomanyrequests resourceexhausted throttl"),
    (503, "overload unavailable capacity loading"),
    (504, "timeout timedout deadlineexceeded"),
    (500, "servererror internal apierror providererror upstream badgateway"),
    (400, "badrequest invalidrequest invalidargument invalidparameter validation notsupported unprocessable contextlength contextsize"),
)
"""HTTP status by substrings of error codes; the first match wins."""


_WORDS = tuple(
    (status, re.compile(pattern, re.IGNORECASE))
    for status, pattern in (
        (401, r"(?:invalid|incorrect|missing|wrong) (?:\S+ )?(?:api.?key|token|credential)|unauthori[sz]ed"),
        (402, r"insufficient (?:account )?(?:balance|credit|quota|fund)"),
        (404, r"model\b.{0,120}\b(?:not found|not exist)|no endpoints found|(?:unknown|no such|invalid) model"),
        (429, r"rate.?limit|too many requests"),
    )
)
"""HTTP status by message, for errors that have only a message."""


@dataclass(frozen=True)
class Fault:
    """A parsed error of an endpoint."""

    said: str
    """The server's message."""
    status: int | None = None
    """HTTP status, given as a number or implied by a known code; None if unknown."""
    content: bool = False
    """Whether its code is one of a content filter."""
    content_words: bool = False
    """Whether its message is one of a content filter."""
    no_credit: bool = False
    retry_after: float | None = None
    """Seconds to wait before a retry, if given."""
    name: str | None = None
    """The reason under which it is counted if it has no status."""


def fault_in(body: Mapping[str, Any], alone: bool = False) -> Fault | None:
    """The error in a response of status 200 or in one of its choices; None if there is none. ALONE: a bare message counts as one."""
    error = body.get("error")
    if _is_error(error):
        return read_fault(error if isinstance(error, dict | list) else body)
    state = body.get("base_resp")  # MiniMax
    if isinstance(state, dict) and state.get("status_code") not in (0, None):
        return read_fault(state)
    if not alone:
        return None
    if body.get("object") == "error" or any(body.get(name) for name in _SAYS):  # older vLLM; FastAPI
        return read_fault(body)
    return _blocked_prompt(body)


def _is_error(error: object) -> bool:
    """Whether ERROR is really an error: some gateways always write one, with a code for success."""
    if isinstance(error, dict) and error.get("code") in (0, "0", 200, "200"):
        return False
    return isinstance(error, str | int | list | dict) and bool(error)


def _blocked_prompt(body: Mapping[str, Any]) -> Fault | None:
    """The error of a prompt that was blocked by a filter and has no choices; None if it was not."""
    feedback = body.get("promptFeedback") or body.get("prompt_feedback")
    if isinstance(feedback, dict) and (reason := feedback.get("blockReason") or feedback.get("block_reason")):
        return Fault(f"the prompt is blocked: {reason}", content=True)
    results = body.get("prompt_filter_results")
    if any(found.get("filtered") is True for found in _dicts(results)):
        return Fault("the prompt is filtered", content=True)
    return None


def read_fault(found: object) -> Fault:
    """Parse an error; FOUND is the body of a non-2xx response, or the error inside a body."""
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return _told(found, str(found or ""), [])
    inner = found.get("error")
    words = _words(inner) if inner else _words(found)
    return _told(found, words, list(_dicts(found)))


def _told(found: object, said: str, parts: list[dict[str, Any]]) -> Fault:
    values = [part[name] for part in parts for name in _NAMES if isinstance(part.get(name), str | int)]
    numbers = [int(value) for value in values if not isinstance(value, bool) and re.fullmatch(r"[45]\d\d", str(value))]
    names = [re.sub(r"[^a-z0-9]", "", value.lower()) for value in values if isinstance(value, str)]
    flagged = any("flagged_input" in part for part in parts)
    return Fault(
        said=said,
        status=numbers[0] if numbers else _status_of(names, said),
        content=flagged or not _CONTENT.isdisjoint(names),
        content_words=bool(_CONTENT_WORDS.search(said)),
        no_credit=any(part in name for name in names for part in _NO_CREDIT),
        retry_after=next((seconds for part in parts if (seconds := _rest(part)) is not None), None),
    )


def _status_of(names: list[str], said: str) -> int | None:
    for status, parts in _STATUSES:
        if any(part in name for name in names for part in parts.split()):
            return status
    return next((status for status, pattern in _WORDS if pattern.search(said)), None)


def _words(error: object) -> str:
    """The message of an error, with that of the provider's error if a gateway wraps one."""
    if not isinstance(error, dict):
        return error if isinstance(error, str) else json.dumps(error)
    said = next((error[name] for name in _SAYS if error.get(name)), None)
    text = json.dumps(error) if said is None else said if isinstance(said, str) else json.dumps(said)
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{text}: {raw if isinstance(raw, str) else json.dumps(raw)}" if raw else text


def _dicts(found: object) -> Iterator[dict[str, Any]]:
    """Every object in FOUND, outer before inner, also inside JSON text: gateways pass on a provider's error that way."""
    waiting, seen = deque([(found, 0)]), 0
    while waiting and seen < _MOST:
        value, depth = waiting.popleft()
        seen += 1
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        if isinstance(value, dict):
            yield value
        if depth < _DEEPEST and isinstance(value, dict | list):
            waiting.extend((part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))


def _rest(part: Mapping[str, Any]) -> float | None:
    """Seconds to wait, from one object of an error: Google's retryDelay, a gateway's retry_after, or the provider's headers."""
    for name, value in part.items():
        word = re.sub(r"[^a-z]", "", name.lower())
        if word in ("retryafter", "retryafterseconds", "retrydelay", "retryafterms", "xratelimitreset", "ratelimitreset"):
            seconds = _seconds(value, 1000.0 if word == "retryafterms" else 1.0)
            if seconds is not None:
                return seconds
    return None


def _seconds(value: object, scale: float) -> float | None:
    """Seconds to wait: from a number times SCALE, `34s`, `250ms`, or a Unix time in seconds or milliseconds; None if invalid."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)?\s*", str(value), re.ASCII) if isinstance(value, str | int | float) else None
    if found is None or isinstance(value, bool):
        return None
    number = float(found[1]) / (1000.0 if found[2] == "ms" else scale)
    if number > 1e9:
        return max(0.0, (number / 1000.0 if number > 1e11 else number) - time())
    return number
