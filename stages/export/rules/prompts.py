"""The program reads every row as the training did, token by token: no token is missing, doubled or another one."""

from collections.abc import Sequence
from typing import Any

from stages.export.asked import Asked
from stages.export.formats.base import Limits
from stages.export.material import Material
from stages.export.rules.base import Differs
from stages.export.runtimes.base import Runtime


def check(material: Material, runtime: Runtime, asked: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """The number of rows that were compared; raises Differs for the first token that differs.

    The rendered text is read, as programs with templates of their own do, and where there is a chat template, the conversation too.
    """
    rows = 0
    for one in asked:
        question = one.question
        if question.text is None:
            continue
        rows += 1
        _compare(one, "text", runtime, runtime.read_text(question.text), material)
        if question.chat is not None:
            _compare(one, "conversation", runtime, runtime.read_chat(question.chat), material)
    return {"prompts_compared": rows}


def _compare(one: Asked, form: str, runtime: Runtime, found: Sequence[int], material: Material) -> None:
    wanted = one.question.prompt
    if list(found) == wanted:
        return
    place = next((n for n, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found)))
    bos = material.encoder.bos
    number = material.encoder.tokenizer.token_to_id(bos) if bos else None
    begins = {len([1 for token in _leading(ids, number)]) for ids in (wanted, found)}
    what = f"{runtime.name} reads the {form} of {one} otherwise than the training: token {place} is {_name(found, place, material)}, "
    what += f"and {_name(wanted, place, material)} in the training"
    if number is not None and len(begins) == 2:
        what += f" (BOS {bos!r}: {len(_leading(found, number))} instead of {len(_leading(wanted, number))})"
    raise Differs(what)


def _leading(ids: Sequence[int], token: int | None) -> list[int]:
    """The ids at the start of IDS that are TOKEN."""
    count = next((number for number, one in enumerate(ids) if one != token), len(ids))
    return list(ids[:count])


def _name(ids: Sequence[int], place: int, material: Material) -> str:
    if place >= len(ids):
        return "missing"
    (text,) = material.encoder.decode([[ids[place]]])
    return f"{text!r} ({ids[place]})"
