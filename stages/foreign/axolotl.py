"""Labels as axolotl 0.18 makes them: the rules of its `prompt_tokenizers`, `prompt_strategies` and `utils/data`, written anew.

A prompt with an answer is encoded as two texts, with the tokens that the tokenizer adds before the first. A conversation is rendered whole;
the content of a turn is where the rendering differs from one with another content, and an end token up to three tokens later belongs to it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stages.foreign import formats
from stages.foreign.labels import Dropped, Labelled, Made, NoRule

Row = Mapping[str, Any]
_DUMMY = "[[dummy_message]]"
_ROLES = {"human": "user", "user": "user", "assistant": "assistant", "gpt": "assistant", "system": "system", "tool": "tool"}
_FIELDS = {
    "alpaca": ("instruction", "input", "output", (formats.WITH_INPUT, formats.WITHOUT_INPUT), "instruct"),
    "gpteacher": ("instruction", "input", "response", (formats.WITH_INPUT, formats.WITHOUT_INPUT), "instruct"),
    "oasst": ("INSTRUCTION", None, "RESPONSE", (formats.WITH_INPUT, formats.WITHOUT_INPUT), "instruct"),
    "alpaca_chat.load_qa": ("question", None, "answer", ("", ""), "chat"),
    "alpaca_chat.load_no_prompt": ("instruction", "input", "output", ("", ""), "chat"),
    "alpaca_instruct.load_no_prompt": ("instruction", "input", "output", ("", ""), "instruct"),
}


def label(row: Row, config: Mapping[str, Any], dataset: Mapping[str, Any], tokenizer: Any) -> Made:
    """What ROW becomes; CONFIG and DATASET as the file has them, TOKENIZER as transformers loads it."""
    if config.get("rl"):
        raise NoRule("the rules of trainings on pairs are not written down here")
    kind = dataset.get("type")
    base = str(kind).partition(":")[0]
    length = int(config.get("sequence_len") or 512)
    if isinstance(kind, dict) or base in _FIELDS:
        made = _pair(row, config, kind, tokenizer, length)
    elif base in ("completion", "pretrain"):
        return _text(row, dataset, tokenizer, length)
    else:
        made = _conversation(row, config, dataset, tokenizer)
    if len(made.ids) < 2:
        return Dropped("fewer than two tokens")
    if len(made.ids) > length:
        long = config.get("excess_length_strategy") or "drop"
        if long != "truncate":
            return Dropped("longer than sequence_len")
        made = Labelled(made.ids[:length], made.learned[:length], True)
    return [made]


def _encoded(text: str, tokenizer: Any, limit: int, end: bool, strip: bool = False) -> list[int]:
    if not text:
        return []
    ids: list[int] = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
    if end and ids and ids[-1] != tokenizer.eos_token_id and len(ids) < limit:
        ids = [*ids, tokenizer.eos_token_id]
    return ids[1:] if strip and ids and ids[0] == tokenizer.bos_token_id else ids


def _pair(row: Row, config: Mapping[str, Any], kind: Any, tokenizer: Any, length: int) -> Labelled:
    question, answer = _defined(row, kind) if isinstance(kind, dict) else _styled(row, str(kind))
    before = _encoded(question, tokenizer, length, end=False)
    after = _encoded(answer, tokenizer, length, end=True, strip=True)
    return Labelled([*before, *after], [bool(config.get("train_on_inputs"))] * len(before) + [True] * len(after))


def _styled(row: Row, kind: str) -> tuple[str, str]:
    base, _, style = kind.partition(":")
    asked, more, answer, systems, default = _FIELDS[base]
    system, long, short = formats.TURNS[style or default]
    context = str(row.get(more) or "") if more else ""
    said = systems[0] if context else systems[1]
    turn = (long if context else short).replace("{i}", str(row[asked])).replace("{x}", context)
    return (system.replace("{s}", said) if said else "") + turn, str(row[answer] or "")


def _defined(row: Row, kind: Mapping[str, Any]) -> tuple[str, str]:
    name = {short: str(kind.get(f"field_{short}") or short) for short in ("system", "instruction", "input", "output")}
    system = str(row.get(name["system"], kind.get("system_prompt") or "") or "")
    context = str(row.get(name["input"]) or "")
    turn = str(kind.get("format") or "{instruction} {input} ") if context else str(kind.get("no_input_format") or "{instruction} ")
    head = str(kind.get("system_format") or "{system}").format(system=system) if system else ""
    return head + turn.format(instruction=row[name["instruction"]], input=context), str(row.get(name["output"]) or "")


def _text(row: Row, dataset: Mapping[str, Any], tokenizer: Any, length: int) -> Made:
    text = str(row[str(dataset.get("field") or dataset.get("text_column") or "text")])
    if str(dataset.get("type")) == "pretrain":
        pieces = _windows(text, tokenizer, length)
    else:
        ids = _encoded(text, tokenizer, 64 * length, end=True)
        pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
    made = [Labelled(piece, [True] * len(piece)) for piece in pieces if len(piece) >= 2]
    return made or Dropped("fewer than two tokens")


def _windows(text: str, tokenizer: Any, length: int) -> list[list[int]]:
    """Pieces of a text that share 256 tokens with the one before (fewer, if they are short), each with an end token."""
    shared = min(256, (length - 1) // 2)
    found = tokenizer(text, truncation=True, max_length=length - 1, return_overflowing_tokens=True, stride=shared)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in (found if found and isinstance(found[0], list) else [found])]


def _conversation(row: Row, config: Mapping[str, Any], dataset: Mapping[str, Any], tokenizer: Any) -> Labelled:
    turns = _turns(row, dataset)
    template = _template(config, dataset)
    variables = config.get("chat_template_kwargs") or {}
    tools = row.get(str(dataset.get("field_tools") or "tools"))
    tools = json.loads(tools) if isinstance(tools, str) and tools.strip() else tools or None

    def rendered(given: Sequence[Mapping[str, Any]]) -> list[int]:
        options = {"chat_template": template, **variables}
        ids: list[int] = tokenizer.apply_chat_template(list(given), tokenize=True, return_dict=False, tools=tools, **options)
        return ids

    # The schema of axolotl drops keys that are null: they are not set.
    roles = dataset.get("roles_to_train")
    roles = ["assistant"] if roles is None else roles
    ends = dataset.get("train_on_eos") or "turn"
    turn_ends = dataset.get("train_on_eot") or ends
    ids = rendered(turns)
    learned = [False] * len(ids)
    eot = config.get("eot_tokens")
    marks = [tokenizer.encode(token, add_special_tokens=False) for token in (eot if eot is not None else [tokenizer.eos_token]) if token]
    kinds = ((turn_ends, {mark[0] for mark in marks if len(mark) == 1}), (ends, {tokenizer.eos_token_id}))
    named = {_ROLES.get(role, role) for role in roles}
    last: dict[int, int] = {}
    for number, turn in enumerate(turns):
        flag = turn.get("training")
        learns = bool(flag) if flag is not None else bool(config.get("train_on_inputs")) or turn.get("role") in named
        if not learns and "all" not in (ends, turn_ends):
            continue
        start, end = _span(turns, number, rendered)
        if learns and start >= 0:
            learned[start:end] = [True] * (end - start)
        for sort, (option, tokens) in enumerate(kinds):
            place = next((n for n in range(max(end, 0), len(ids)) if ids[n] in tokens), -1)
            if place < 0 or abs(place - end) > 3:
                continue
            last[sort] = place
            if option == "all" or (option == "turn" and learns):
                learned[place] = True
    for sort, (option, _) in enumerate(kinds):
        if option == "last" and sort in last:
            learned[last[sort]] = True
    return Labelled(ids, learned)


def _span(turns: Sequence[Mapping[str, Any]], number: int, rendered: Any) -> tuple[int, int]:
    """Where the content of turn NUMBER is: between the first and the last token in which its rendering differs from another content's."""
    empty = {"role": turns[number].get("role"), "content": _DUMMY}
    dummy, full = rendered([*turns[:number], empty]), rendered(turns[: number + 1])
    shorter = min(len(dummy), len(full))
    start = next((n for n in range(shorter) if dummy[n] != full[n]), None)
    back = next((n for n in range(shorter) if dummy[-1 - n] != full[-1 - n]), None)
    if start is None or back is None or len(full) - back <= start:
        return -1, -1
    return start, len(full) - back


def _turns(row: Row, dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    sharegpt = dataset.get("type") == "sharegpt"
    given = row[str(dataset.get("field_messages") or ("conversations" if sharegpt else "messages"))]
    messages = json.loads(given) if isinstance(given, str) else given
    mapping = {"role": "from", "content": "value"} if sharegpt else {"role": "role", "content": "content"}
    mapping |= {k: v for k, v in (("role", dataset.get("message_field_role")), ("content", dataset.get("message_field_content"))) if v}
    mapping |= dataset.get("message_property_mappings") or {}
    roles = {s: t for t, sources in (dataset.get("roles") or {}).items() for s in sources} or _ROLES
    turns = []
    for message in messages:
        turn = {key: message[value] for key, value in mapping.items() if message.get(value) is not None}
        turn |= {key: message[key] for key in ("tool_calls", "tool_call_id", "name", "reasoning_content") if message.get(key) is not None}
        turn["role"] = roles.get(turn["role"], turn["role"])
        flag = message.get(dataset.get("message_field_training")) if dataset.get("message_field_training") else None
        turns.append({**turn, "training": flag} if flag is not None else turn)
    if turns[0]["role"] != "system" and "system" in row and row["system"] is not None:
        turns.insert(0, {"role": "system", "content": row["system"]})
    return turns[1:] if dataset.get("drop_system_message") and turns[0]["role"] == "system" else turns


def _template(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> str | None:
    """The text of the chat template; None for the tokenizer's own. Raises NoRule for a template of axolotl that is not written out here."""
    where = dataset if dataset.get("chat_template") or dataset.get("chat_template_jinja") else config
    name, jinja = where.get("chat_template"), where.get("chat_template_jinja")
    if jinja and name in (None, "jinja"):
        return str(jinja)
    if name in (None, "tokenizer_default") or str(name).startswith("tokenizer_default_fallback_"):
        return None
    if name not in formats.AXOLOTL:
        raise NoRule(f"axolotl's chat template {name} is not written out here")
    system = config.get("default_system_message")
    return formats.AXOLOTL[str(name)].template(None if system is None else str(system))
