"""Writes a first spec for rows of the user's own, from the columns that they have."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from engine.spec.notation import toml
from stages.generate.layout import Layout
from stages.generate.selection import Files
from stages.generate.sources.csv import Csv
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.parquet import Parquet

SOURCES: Mapping[str, type[Files]] = {".jsonl": Jsonl, ".csv": Csv, ".json": Json, ".parquet": Parquet}
"""The kind of source that reads a file, by its suffix (before that of a compression)."""

READ = 500
"""The number of rows that are looked at."""

ANSWERS = ("answer", "completion", "output", "response", "label", "target", "summary", "translation", "category", "class")
"""Usual names of columns with answers, the surest first."""

FEW, SHORT = 20, 30
"""A column with at most so many different values, of at most so many characters and each in two rows on average, holds labels."""


def spec_for(data: Path, path: str) -> tuple[str, str, str]:
    """The text of a spec for the rows of DATA, which it names as PATH, the name of its task, and a sentence on how rows are read.

    Raises UserError, located at the file, if it cannot be read, has no rows, or has no column that could be an answer.
    """
    suffix = next((end for end in reversed(Path(data.name).suffixes) if end in SOURCES), None)
    if suffix is None:
        hint = f"convert the file to one of {', '.join(SOURCES)}; or edit specs/first.toml after `engine init`"
        raise UserError(f"--data must name a file of rows ({', '.join(SOURCES)}), got {data}", hint=hint)
    source = SOURCES[suffix](path=str(data))
    located = list(islice(source.read((data,)), READ))
    if not located:
        raise UserError(f"{data} has no rows", Location(str(data)))
    rows = [row for _, row in located]
    names = {_layout(row, where) for where, row in located}
    layout = names.pop() if len(names) == 1 else None
    if layout is not None:
        lines, metrics, mask, told = _as_laid_out(layout)
    else:
        lines, metrics, mask, told = _as_columns(rows, data)
    name = re.sub(r"[^a-z0-9]+", "-", data.name.partition(".")[0].lower()).strip("-") or "rows"
    task = [f"source         = {{ kind = {toml(SOURCES[suffix].model_fields['kind'].default)}, path = {toml(path)} }}", *lines]
    evaluation = [f"held_out = [{toml(name)}]", "tasks    = []"] if layout == "text" else [f"metrics = [{', '.join(map(toml, metrics))}]"]
    text = _SPEC.format(name=name, task="\n".join(task), evaluation="\n".join(evaluation), mask=toml(mask))
    return text, name, f"{data.name}: {told}"


def _layout(row: dict[str, Any], where: Location) -> str | None:
    """The layout of conversations that a row has; None for columns without one, and for plain text."""
    try:
        name, _ = Layout().normalised(row, where)
    except UserError:
        return None
    return name if name != "text" or len(row) == 1 else None


def _as_laid_out(layout: str) -> tuple[list[str], list[str], str, str]:
    """Lines of the task, metrics, mask, and a sentence for rows of a known LAYOUT."""
    lines = [f"layout         = {toml(layout)}", "max_new_tokens = 64"]
    if layout == "text":
        return lines, [], "full", "texts, all of which are learned"
    if layout == "preference":
        lines.insert(1, "# of pairs, this training learns the chosen answers; to prefer them, see [training] below")
        return lines, ["exact_match", "rouge", "eos_rate"], "completion", "pairs of a chosen and a rejected answer"
    return lines, ["exact_match", "rouge", "eos_rate"], "completion", f"rows of layout {layout}, whose answers are learned"


def _as_columns(rows: list[dict[str, Any]], data: Path) -> tuple[list[str], list[str], str, str]:
    """Lines of the task, metrics, mask, and a sentence for rows with plain columns, one of which is the answer."""
    # A template names a column as a variable, so its name must be a word.
    words = [name for name in rows[0] if name.isidentifier()]
    texts = {name: [str(row[name]) for row in rows] for name in words if all(isinstance(row.get(name), str | int) for row in rows)}
    answer = _answer(texts)
    if answer is None or len(texts) < 2:
        shown = ", ".join(rows[0])
        hint = "both must be in every row, and named by a word; or edit specs/first.toml, which `engine init` writes without --data"
        raise UserError(f"no two columns of {data} could be a question and its answer: {shown}", Location(str(data), 1), hint)
    asked = [name for name in texts if name != answer and not _is_id(texts[name])] or [name for name in texts if name != answer]
    prompt = "".join(f"{name}: {{{{ {name} }}}}\n" for name in asked) + f"{answer}:"
    longest = max(len(text.split()) for text in texts[answer])
    lines = [
        f"prompts        = [{toml(prompt)}]",
        f'teacher        = {{ kind = "gold", column = {toml(answer)} }}',
        'answer_prefix  = " "',
        f"max_new_tokens = {min(128, max(8, 3 * longest))}",
    ]
    labels = set(texts[answer])
    if len(labels) <= min(FEW, len(rows) / 2) and max(map(len, labels)) <= SHORT:
        return lines, ["exact_match", "eos_rate"], "completion", f"{answer} ({len(labels)} values) is learned from {', '.join(asked)}"
    return lines, ["exact_match", "rouge", "eos_rate"], "completion", f"{answer} is learned from {', '.join(asked)}"


def _answer(texts: Mapping[str, list[str]]) -> str | None:
    """The column that most likely holds the answers: one with a usual name, else the last."""
    named: Iterator[str] = (name for usual in ANSWERS for name in texts if name.lower() == usual)
    return next(named, list(texts)[-1] if texts else None)


def _is_id(values: list[str]) -> bool:
    """Whether a column numbers the rows: different in each, and without a space."""
    return len(set(values)) == len(values) > 1 and not any(" " in value for value in values)


_SPEC = """# A first experiment on your rows: trains a tiny model from scratch, to see the whole road in a minute.
# To look at rows, labels and tokens first:   engine preview specs/first.toml {name}
# What would run:                             engine plan
# Then set [model] to a real model, and the method to LoRA.

[experiment]
name = "first"
seed = 1

[model]                          # a real one: path = "/models/Qwen3-0.6B"; or id and revision on the hub
name         = "tiny"
architecture = {{ kind = "llama", hidden_size = 64, layers = 2, heads = 4, max_length = 512 }}
tokenizer    = {{ vocab_size = 2000 }}

[tasks.{name}]
{task}
split          = {{ validation = 0.1, test = 0.1 }}

[tokenization]                   # format = "chat" for a model with a chat template
mask        = {mask}
max_length  = 512
over_length = "truncate_prompt_left"

[mixture]
tasks = ["{name}"]

[training]
method        = "full"           # of a real model: {{ kind = "lora", r = 16, lora_alpha = 32 }}
epochs        = 2                # to prefer chosen answers: objective = "dpo", after a supervised training
global_batch  = {{ rows = 16 }}
learning_rate = 3e-3             # LoRA: 2e-4

[evaluation]
{evaluation}
"""
