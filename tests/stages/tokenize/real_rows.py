"""Public conversations and questions beside the repository, as rows."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "../shared/data"

needs_data = pytest.mark.skipif(not (DATA / "gsm8k/train.jsonl").exists(), reason="the public data sets do not lie beside the repository")

ROLES = {"human": "user", "gpt": "assistant", "prompter": "user", "assistant": "assistant", "observation": "tool"}


def gsm8k(count):
    with (DATA / "gsm8k/train.jsonl").open() as file:
        rows = [json.loads(line) for line, _ in zip(file, range(count), strict=False)]
    return [{"prompt": f"{row['question']}\n", "completion": row["answer"]} for row in rows]


def fastchat(count):
    rows = json.loads((DATA / "fastchat/dummy_conversation.json").read_text())
    return [{"messages": [_message(turn) for turn in row["conversations"]]} for row in rows[:count]]


def oasst(count):
    """The first thread of each tree, up to its last answer."""
    rows = []
    with (DATA / "oasst_sample/en_100_tree.jsonl").open() as file:
        for line, _ in zip(file, range(count), strict=False):
            message, thread = json.loads(line)["prompt"], []
            while message:
                thread.append({"role": ROLES[message["role"]], "content": message["text"]})
                message = message["replies"][0] if message["replies"] else None
            rows.append({"messages": thread[: len(thread) // 2 * 2]})
    return [row for row in rows if row["messages"]]


def glaive(count):
    """Conversations with tools, calls and what the tools said."""
    rows = json.loads((DATA / "glaive_toolcall/glaive_toolcall_en_demo.json").read_text())
    return [{"messages": [_message(turn) for turn in row["conversations"]], "tools": json.loads(row["tools"])} for row in rows[:count]]


def _message(turn):
    if turn["from"] == "function_call":
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": json.loads(turn["value"])}]}
    return {"role": ROLES[turn["from"]], "content": turn["value"]}
