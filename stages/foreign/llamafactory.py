"""Labels as LLaMA-Factory 0.9.6 makes them: the rules of its `data/converter`, `data/template` and `data/processor`, written anew.

Each message is encoded by itself; what follows an answer in its template, such as a line break behind the end token, is learned with it. A
row that is too long loses ends of questions and answers in proportion, the end token too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.foreign import formats
from stages.foreign.formats import Chat
from stages.foreign.labels import Dropped, Labelled, Made, NoRule

Row = Mapping[str, Any]
Pair = tuple[list[int], list[int]]
"""Tokens of a question and of its answer."""
_BEFORE_ANSWERS = {"mistral"}
"""Templates whose header of an answer is encoded with the answer, not with the question."""


def label(row: Row, config: Mapping[str, Any], dataset: Mapping[str, Any], tokenizer: Any) -> Made:
    """What ROW becomes; CONFIG as the file has it, DATASET as dataset_info.json has it, TOKENIZER as transformers loads it."""
    length = int(config.get("cutoff_len") or 2048)
    if config.get("stage") == "dpo":
        raise NoRule("the rules of trainings on pairs are not written down here")
    if config.get("stage") == "kto":
        raise NoRule("the rules of trainings on judged answers are not written down here")
    if config.get("stage") == "pt":
        return _text(row, config, dataset, tokenizer, length)
    messages, system = _sharegpt(row, dataset) if dataset.get("formatting", "alpaca") != "alpaca" else _alpaca(row, dataset)
    if len(messages) < 2 or len(messages) % 2:
        return Dropped("not questions and answers in turn")
    pairs = _pairs(messages, system, config, tokenizer)
    packed = config.get("packing") or config.get("neat_packing")
    whole = sum(len(question) + len(answer) for question, answer in pairs)
    made = _labelled(pairs, config, length)
    if packed and len(made.ids) > length:
        return Dropped("longer than cutoff_len")
    return [Labelled(made.ids, made.learned, len(made.ids) < whole)]


def _text(row: Row, config: Mapping[str, Any], dataset: Mapping[str, Any], tokenizer: Any, length: int) -> Made:
    columns = dataset.get("columns")
    name = str(columns.get("prompt")) if columns else "instruction"
    end = "<|end_of_text|>" if config.get("template") == "llama3" else tokenizer.eos_token
    ids = tokenizer(str(row[name]) + end, add_special_tokens=False)["input_ids"]
    if config.get("packing", True) is not False:
        # Texts are joined, and the blocks that are cut then know no rows: the texts are compared as they are before.
        return [Labelled(ids, [True] * len(ids))]
    return [Labelled(ids[:length], [True] * len(ids[:length]), len(ids) > length)]


def _alpaca(row: Row, dataset: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    columns = dataset.get("columns") or {"prompt": "instruction", "query": "input", "response": "output"}
    asked = [row[columns[key]] for key in ("prompt", "query") if columns.get(key) and row.get(columns[key])]
    turns = [{"role": "user", "content": "\n".join(asked)}]
    for question, answer in reversed(row.get(columns.get("history", ""), ()) or ()):
        turns[:0] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    answer = row.get(columns.get("response", ""))
    if isinstance(answer, str):
        turns.append({"role": "assistant", "content": answer})
    return turns, str(row.get(columns.get("system", "")) or "")


def _sharegpt(row: Row, dataset: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    columns, tags = dataset.get("columns") or {}, dataset.get("tags") or {}
    role, content = tags.get("role_tag", "from"), tags.get("content_tag", "value")
    names = {"user": "human", "assistant": "gpt", "observation": "observation", "function": "function_call", "system": "system"}
    given = {tags.get(f"{key}_tag", None if tags else default): key for key, default in names.items()}
    messages = [*row[columns.get("messages", "conversations")]]
    system = str(row.get(columns.get("system", "")) or "")
    if messages and given.get(messages[0].get(role)) == "system":
        system, messages = str(messages[0][content]), messages[1:]
    turns = [{"role": given.get(message.get(role), "?"), "content": str(message.get(content) or "")} for message in messages]
    expected = [("user", "observation"), ("assistant", "function")]
    if any(turn["role"] not in expected[number % 2] for number, turn in enumerate(turns)) or len(turns) % 2:
        return [], system
    if any(turn["role"] in ("observation", "function") for turn in turns):
        raise NoRule("tool calls are not written down here")
    return turns, system


def _pairs(messages: Sequence[Mapping[str, str]], system: str, config: Mapping[str, Any], tokenizer: Any) -> list[Pair]:
    """Question and answer of each turn, encoded apart."""
    name = str(config.get("template"))
    if name not in formats.LLAMA_FACTORY:
        raise NoRule(f"LLaMA-Factory's template {name} is not written out here")
    chat = formats.LLAMA_FACTORY[name]
    system = system or str(config.get("default_system") or "") or chat.default_system
    found: list[Pair] = []
    for number in range(0, len(messages), 2):
        question, answer = messages[number]["content"], messages[number + 1]["content"]
        if chat.joined and number == 0 and system:
            question = chat.system.replace("{system}", system) + question
        pieces = [chat.start] if number == 0 and chat.start else []
        if number == 0 and system and not chat.joined:
            pieces.append(chat.system.replace("{system}", system))
        asked, said = _turn(chat, question, answer, name in _BEFORE_ANSWERS)
        found.append((_encoded([*pieces, asked], tokenizer), _encoded([said], tokenizer)))
    return found


def _turn(chat: Chat, question: str, answer: str, with_answer: bool) -> tuple[str, str]:
    user = chat.user.replace("{content}", question)
    return (user, chat.header + answer + chat.end) if with_answer else (user + chat.header, answer + chat.end)


def _encoded(pieces: Sequence[str], tokenizer: Any) -> list[int]:
    """PIECES, each encoded by itself; `{bos}` and `{eos}` are tokens."""
    ids: list[int] = []
    for piece in pieces:
        for part in re.split(r"(\{bos\}|\{eos\})", piece):
            token = {"{bos}": tokenizer.bos_token_id, "{eos}": tokenizer.eos_token_id}.get(part)
            if part in ("{bos}", "{eos}"):
                ids += [token] if token is not None else []
            elif part:
                ids += tokenizer.encode(part, add_special_tokens=False)
    return ids


def _labelled(pairs: Sequence[Pair], config: Mapping[str, Any], length: int) -> Labelled:
    last_only, everything = bool(config.get("mask_history")), bool(config.get("train_on_prompt"))
    ids: list[int] = []
    learned: list[bool] = []
    for number, (question, answer) in enumerate(reversed(pairs) if last_only else pairs):
        if len(ids) >= length:
            break
        asked, said = _shares(len(question), len(answer), length - len(ids))
        question, answer = question[:asked], answer[:said]
        flags = [everything] * len(question) + [not (last_only and number)] * len(answer)
        ids, learned = ([*question, *answer, *ids], [*flags, *learned]) if last_only else ([*ids, *question, *answer], [*learned, *flags])
    return Labelled(ids, learned)


def _shares(question: int, answer: int, room: int) -> tuple[int, int]:
    """How many tokens of question and answer stay in ROOM."""
    if answer * 2 < room:
        most = room
    elif question * 2 < room:
        most = room - question
    else:
        most = int(room * (answer / (question + answer)))
    kept = min(most, answer)
    return min(max(room - kept, 0), question), kept
