"""Labels as TRL 1.16's supervised training makes them: the rules of its trl/trainer/sft_trainer.py, written anew."""

import json
from collections.abc import Mapping
from typing import Any

from stages.foreign.labels import Dropped, Labelled, Made, NoRule

Row = Mapping[str, Any]


def label(row: Row, config: Mapping[str, Any], dataset: Mapping[str, Any], tokenizer: Any) -> Made:
    """What ROW becomes; CONFIG as the file has it, TOKENIZER as transformers loads it."""
    length, packed = config.get("max_length", 1024), config.get("packing")
    if "chosen" in row:
        raise NoRule("the rules of trainings on pairs are not written down here")
    if "completion" in row and "label" in row:
        raise NoRule("the rules of trainings on judged answers are not written down here")
    if "messages" in row or "conversations" in row or isinstance(row.get("prompt"), list):
        made = _conversation(row, config, tokenizer)
    elif "prompt" in row:
        made = _completion(row, config, tokenizer)
    else:
        text = str(row[str(config.get("dataset_text_field") or "text")])
        ids = tokenizer(_ended(text, tokenizer))["input_ids"]
        made = Labelled(ids, [True] * len(ids))
    if length is None or len(made.ids) <= length:
        return [made]
    if packed and config.get("packing_strategy", "bfd") != "bfd":
        return [Labelled(made.ids[n : n + length], made.learned[n : n + length]) for n in range(0, len(made.ids), length)]
    start = slice(length) if packed or str(config.get("truncation_mode") or "keep_start") == "keep_start" else slice(-length, None)
    cut = Labelled(made.ids[start], made.learned[start], True)
    return [cut] if packed or any(cut.learned) else Dropped("nothing is learned once it is cut")


def _ended(text: str, tokenizer: Any) -> str:
    return text if text.endswith(tokenizer.eos_token) else text + str(tokenizer.eos_token)


def _completion(row: Row, config: Mapping[str, Any], tokenizer: Any) -> Labelled:
    ids = tokenizer(str(row["prompt"]) + _ended(str(row["completion"]), tokenizer))["input_ids"]
    return _after(tokenizer(str(row["prompt"]))["input_ids"], ids, config)


def _conversation(row: Row, config: Mapping[str, Any], tokenizer: Any) -> Labelled:
    given = row.get("messages", row.get("conversations"))
    whole = [{_KEYS.get(key, key): value for key, value in message.items()} for message in given or (*row["prompt"], *row["completion"])]
    tools = row.get("tools") or None
    options: dict[str, Any] = {"tools": json.loads(tools) if isinstance(tools, str) else tools, "tokenize": True, "return_dict": True}
    options |= row.get("chat_template_kwargs") or {}
    assistant = bool(config.get("assistant_only_loss"))
    if assistant and "{% generation %}" not in (tokenizer.chat_template or ""):
        raise NoRule("assistant_only_loss needs a chat template with {% generation %}; TRL puts its own in place of some templates")
    found = tokenizer.apply_chat_template(whole, return_assistant_tokens_mask=assistant, **options)
    ids: list[int] = found["input_ids"]
    masks = [bool(mask) for mask in found["assistant_masks"]] if assistant else [True] * len(ids)
    if given is not None:
        return Labelled(ids, masks)
    after = _after(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, **options)["input_ids"], ids, config)
    return Labelled(ids, [one and other for one, other in zip(masks, after.learned, strict=True)])


_KEYS = {"from": "role", "value": "content"}


def _after(prompt: list[int], ids: list[int], config: Mapping[str, Any]) -> Labelled:
    """IDS, of which those after the part that they share with the tokens of PROMPT are learned."""
    before = next((n for n, (one, other) in enumerate(zip(prompt, ids, strict=False)) if one != other), min(len(prompt), len(ids)))
    everything = config.get("completion_only_loss") is False
    return Labelled(ids, [everything or place >= before for place in range(len(ids))])
