"""The rows of the tokenize benchmark: real ones from several public sets, repeated, and synthetic ones of any number."""

import json
from collections.abc import Iterable, Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

DATA = ROOT / "../shared/data"
EOS = "<|endoftext|>"

Pair = tuple[str, str]
"""Prompt and completion."""


def real_pairs() -> list[Pair]:
    """Prompts and completions of five public sets; raises FileNotFoundError where they are not next to the repository."""
    gsm8k = [(row["question"] + "\n", row["answer"]) for row in _lines("gsm8k/train.jsonl")]
    papers = [(" ".join(row["source"]) + "\n\nTL;DR:", " " + row["target"][0]) for row in _lines("scitldr_a/train.jsonl")]
    seeds = [(row["instruction"] + "\n", case["output"]) for row in _lines("self_instruct/seed_tasks.jsonl") for case in row["instances"]]
    chats = [*_chats("glaive_toolcall/glaive_toolcall_en_demo.json"), *_chats("fastchat/dummy_conversation.json")]
    return [(prompt, completion) for prompt, completion in (*gsm8k, *papers, *seeds, *chats) if completion.strip()]


def _chats(name: str) -> Iterator[Pair]:
    for row in json.loads((DATA / name).read_text("utf-8")):
        for question, answer in pairwise(row["conversations"]):
            if (question["from"], answer["from"]) == ("human", "gpt"):
                yield question["value"] + "\n", answer["value"]


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def synthetic_pairs(count: int) -> Iterator[Pair]:
    """COUNT pairs of 5 to 44 words from a vocabulary of 2,000, the same every time."""
    import random

    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(2_000)]
    for _ in range(count):
        text = " ".join(generator.choices(words, k=generator.randint(5, 44)))
        yield text[: len(text) // 2] + "\n", text[len(text) // 2 :]


def write_rows(path: Path, pairs: Iterable[Pair]) -> int:
    """Write PAIRS as the rows that a split step leaves; the number of rows."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for number, (prompt, completion) in enumerate(pairs, 1):
            row = {"id": f"{number:08x}", "group": f"{number:08x}", "prompt": prompt, "completion": completion}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return number


def repeated(pairs: list[Pair], count: int) -> list[Pair]:
    """PAIRS again and again, at least COUNT of them."""
    return list(islice(cycle(pairs), max(count, len(pairs))))


def write_tokenizer(folder: Path, pairs: list[Pair], size: int = 8_000) -> dict[str, Path]:
    """A byte-level BPE of SIZE tokens, trained on PAIRS: its files by name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for pair in pairs for text in pair), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return {f"tokenizer/{name}": folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
