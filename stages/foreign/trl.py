"""Labels as TRL 1.16's supervised training makes them: the rules of its trl/trainer/sft_trainer.py, written anew."""

from collections.abc import Mapping
from typing import Any

from stages.foreign.labels import Labelled, Made, NoRule

Row = Mapping[str, Any]


def label(row: Row, config: Mapping[str, Any], dataset: Mapping[str, Any], tokenizer: Any) -> Made:
    """What ROW becomes; CONFIG as the file has it, TOKENIZER as transformers loads it."""
    length = config.get("max_length", 1024)
    if "messages" in row or isinstance(row.get("prompt"), list):
        made = _conversation(row, config, tokenizer)
    elif "prompt" in row:
        made = _completion(row, config, tokenizer)
    else:
        text = str(row[str(config.get("dataset_text_field") or "text")])
        ids = tokenizer(text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token)["input_ids"]
        made = Labelled(ids, [True] * len(ids))
    if length is None or len(made.ids) <= length:
        return [made]
    if str(config.get("truncation_mode") or "keep_start") == "keep_start":
        return [Labelled(made.ids[:length], made.learned[:length], True)]
    return [Labelled(made.ids[-length:], made.learned[-length:], True)]


def _completion(row: Row, config: Mapping[str, Any], tokenizer: Any) -> Labelled:
    answer = str(row["completion"])
    answer = answer if answer.endswith(tokenizer.eos_token) else answer + tokenizer.eos_token
    before = len(tokenizer(str(row["prompt"]))["input_ids"])
    ids = tokenizer(str(row["prompt"]) + answer)["input_ids"]
    everything = config.get("completion_only_loss") is False
    return Labelled(ids, [everything or place >= before for place in range(len(ids))])


def _conversation(row: Row, config: Mapping[str, Any], tokenizer: Any) -> Labelled:
    whole = [*row["messages"]] if "messages" in row else [*row["prompt"], *row["completion"]]
    assistant = bool(config.get("assistant_only_loss"))
    options: dict[str, Any] = {"tools": row.get("tools") or None, "tokenize": True, "return_dict": True}
    if assistant and "{% generation %}" not in (tokenizer.chat_template or ""):
        raise NoRule("assistant_only_loss needs a chat template with {% generation %}; TRL puts its own in place of some templates")
    found = tokenizer.apply_chat_template(whole, return_assistant_tokens_mask=assistant, **options)
    ids: list[int] = found["input_ids"]
    if assistant:
        return Labelled(ids, [bool(mask) for mask in found["assistant_masks"]])
    if "messages" in row or config.get("completion_only_loss") is False:
        return Labelled(ids, [True] * len(ids))
    before = len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, **options)["input_ids"])
    return Labelled(ids, [place >= before for place in range(len(ids))])
