"""Writes a first spec for rows of the user's own, from the columns that they have."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from engine.setup.columns import TOLERATED, Chosen, choose, columns_of, conversations_in, where_filled, words_for
from engine.spec.notation import toml
from stages.generate.layout import Layout
from stages.generate.selection import Files
from stages.generate.sources.csv import Csv
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.parquet import Parquet

SOURCES: Mapping[str, type[Files]] = {".jsonl": Jsonl, ".csv": Csv, ".tsv": Csv, ".json": Json, ".parquet": Parquet}
"""The kind of source that reads a file, by its suffix (before that of a compression)."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What separates the values of tables, the likeliest first."""

READ = 5000
"""The number of rows that are looked at."""


@dataclass(frozen=True)
class FirstSpec:
    """A spec for rows of the user's own."""

    name: str
    """The name of its file, without the suffix."""
    task: str
    answer: str | None
    """The column that is learned; None for rows of a known layout."""
    text: str
    told: tuple[str, ...]
    """Sentences that say how the rows are read."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts of other files that the spec names, by path in the workspace."""


@dataclass(frozen=True)
class _Learned:
    """What is learned of the rows, as parts of a spec."""

    lines: list[str]
    """Lines of the task."""
    metrics: list[str]
    mask: str
    told: list[str]
    answer: str | None = None


Gaps = dict[int, tuple[str, str]]
"""Rows that lack a column, by number: the first such column, and how it is empty."""


def spec_for(
    data: Path, path: str, answer: str | None = None, taken: Collection[str] | None = None, template: str | None = None
) -> FirstSpec:
    """A spec for the rows of DATA, which it names as PATH; they are learned from their columns, or from a layout of conversations.

    ANSWER names the column that is learned, if the user has chosen one. TAKEN are the names of experiments, models and tasks in other specs
    of the workspace, which the spec avoids; None if it is the first. TEMPLATE (`chat`, `classify`, `summarize`, `preferences`) says what is
    learned, rather than what the columns suggest. Raises UserError, located at the file, if it cannot be read, has no rows, or has no
    column that could be an answer, or not those of TEMPLATE.
    """
    kind, options, located = _read(data)
    if not located:
        raise UserError(f"{data} has no rows", Location(str(data)))
    rows, lines = [row for _, row in located], [where for where, _ in located]
    layout, gaps = _layout(rows, lines) if answer is None and template not in _OF_COLUMNS else (None, Gaps())
    columns: dict[str, str] = {}
    if layout is None and answer is None and template not in _OF_COLUMNS and (columns := conversations_in(rows)):
        layout, gaps = _layout([{**row, **{new: row[old] for new, old in columns.items()}} for row in rows], lines)
    if template in _LAYOUTS and layout not in _LAYOUTS[template]:
        raise _misfit(template, data, rows, lines)
    if layout is not None:
        learned = _as_laid_out(layout, template)
    else:
        words = {old: new for new, old in words_for(rows).items()}
        rows, answer = [{words.get(name, name): value for name, value in row.items()} for row in rows], words.get(answer or "", answer)
        chosen = choose(rows, str(data), lines, answer or _wanted(template, rows, str(data), lines))
        if template == "classify" and not chosen.answer.is_labels:
            raise _misfit(template, data, rows, lines)
        learned, gaps = _as_columns(chosen, template), chosen.incomplete
        used = {column.name for column in (chosen.answer, *chosen.asked)}
        columns = {new: old for old, new in words.items() if new in used}
    task = _word(data.name.partition(".")[0]) or "rows"
    name, model = "first", "tiny"
    if taken is not None:
        wished = task if task not in taken else f"{task}-{_word(learned.answer or '') or 'again'}"
        further = (f"{wished}-{number}" for number in count(2))
        name = task = next(name for name in chain([wished], further) if name not in taken and f"tiny-{name}" not in taken)
        model = f"tiny-{name}"
    read: dict[str, object] = {"kind": kind, "path": path, **options}
    read |= {"columns": columns} if columns else {}
    read |= {"where": where_filled(gaps.values())} if gaps else {}
    section = [f"source         = {{ {', '.join(f'{key} = {toml(value)}' for key, value in read.items())} }}", *learned.lines]
    told = [f"{data.name}: {learned.told[0]}", *learned.told[1:]]
    told += [f"column '{old}' is {new} in the spec" for new, old in columns.items()]
    if options:
        told.append(f"its values are separated by {DELIMITERS[options['delimiter']]}")
    if gaps:
        section.insert(0, f"# `where` leaves out {(left_out := _left_out(gaps, lines, data.name))}")
        told.append(f"specs/{name}.toml leaves out {left_out}")
    measured = f"metrics = [{', '.join(map(toml, learned.metrics))}]"
    skeleton = _SPEC if template is None else _text(f"{template}.toml")
    text = skeleton.format(
        name=name,
        model=model,
        task=task,
        section="\n".join(section),
        mask=toml(learned.mask),
        evaluation=f"held_out = [{toml(task)}]\ntasks    = []" if layout == "text" else measured,
    )
    files = {"templates/chatml.jinja": _text("chatml.jinja")} if template == "chat" else {}
    return FirstSpec(name, task, learned.answer, text, tuple(told), files)


_LAYOUTS = {
    "chat": ("messages", "conversations", "instruction", "prompt_completion", "tree"),
    "preferences": ("preference",),
}
"""For templates of rows that have a layout: the layouts which they may have."""
_OF_COLUMNS = ("classify", "summarize")
"""Templates of rows with columns."""
_EXPECTED = {
    "chat": '`messages`, a list of {"role": …, "content": …}; or another layout of conversations: docs/how-to/data.md',
    "classify": "a text, and a column of labels: few different values, short ones; --answer COLUMN names it",
    "preferences": "`prompt`, `chosen` and `rejected`; see docs/how-to/preferences.md",
}


def _text(name: str) -> str:
    return resources.files("engine.setup").joinpath("templates", name).read_text("utf-8")


def _misfit(template: str, data: Path, rows: Sequence[Mapping[str, Any]], lines: Sequence[Location]) -> UserError:
    """What is wrong with ROWS that have not the columns of TEMPLATE."""
    columns = ", ".join(dict.fromkeys(name for row in rows for name in row))
    other = f"; for one answer to each question: --template {' or '.join(_OF_COLUMNS)}" if template == "chat" else ""
    what = f"the rows of {data} are none for --template {template}: their columns are {columns}"
    return UserError(what, lines[0], f"expected: {_EXPECTED[template]}{other}")


def _wanted(template: str | None, rows: Sequence[Mapping[str, Any]], file: str, lines: Sequence[Location]) -> str | None:
    """The column that TEMPLATE learns, if that is not the likeliest answer of any; else None."""
    if template not in _OF_COLUMNS:
        return None
    chosen = choose(rows, file, lines)
    if chosen.answer.is_labels is (template == "classify"):
        return None
    if template == "classify":
        return next((column.name for column in chosen.others if column.is_labels), None)
    texts = [one for one in columns_of(rows) if not (one.unusable() or one.not_learned or one.is_id or one.is_labels)]
    return min(texts, key=lambda one: sum(map(len, one.texts)) / len(one.texts)).name if len(texts) > 1 else None


def _word(text: str) -> str:
    """TEXT as a name in a spec; empty if it has no letter or digit of ASCII."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _read(data: Path) -> tuple[str, dict[str, str], list[tuple[Location, dict[str, Any]]]]:
    """The kind of source that reads DATA, options that it needs, and the first rows."""
    suffix = next((end for end in reversed(Path(data.name).suffixes) if end in SOURCES), None)
    if suffix is None:
        hint = f"convert the file to one of {', '.join(SOURCES)}; or edit specs/first.toml after `engine init`"
        raise UserError(f"--data must name a file of rows ({', '.join(SOURCES)}), got {data}", hint=hint)
    if suffix in (".csv", ".tsv"):
        delimiter, rows = _table(data)
        return "csv", {} if delimiter == "," else {"delimiter": delimiter}, rows
    source = SOURCES[suffix](path=str(data))
    return str(SOURCES[suffix].model_fields["kind"].default), {}, list(islice(source.read((data,)), READ))


def _table(data: Path) -> tuple[str, list[tuple[Location, dict[str, Any]]]]:
    """The delimiter of the table DATA, and its first rows: commas if they make several columns, else what makes most."""
    found: dict[str, list[tuple[Location, dict[str, Any]]]] = {}
    refused: dict[str, UserError] = {}
    for delimiter in DELIMITERS:
        try:
            found[delimiter] = list(islice(Csv(path=str(data), delimiter=delimiter).read((data,)), READ))
        except UserError as error:
            refused[delimiter] = error
        else:
            if delimiter == "," and found[","] and len(found[","][0][1]) > 1:
                break
    columns = {delimiter: len(rows[0][1]) if rows else 0 for delimiter, rows in found.items()}
    best = max(columns, key=lambda delimiter: columns[delimiter], default=",")
    if "," in refused and columns.get(best, 0) < 2:
        raise refused[","]
    return best, found[best]


def _layout(rows: Sequence[Mapping[str, Any]], lines: Sequence[Location]) -> tuple[str | None, Gaps]:
    """The layout of conversations that all complete rows have, and the gaps of the others; None for plain columns."""
    names = [_layout_of(dict(row), where) for row, where in zip(rows, lines, strict=True)]
    counted = Counter(name for name in names if name is not None)
    if len(counted) != 1 or counted.total() < (1 - TOLERATED) * len(rows):
        return None, {}
    others = [number for number, name in enumerate(names) if name is None]
    # What all rows of the layout have and the others lack is what makes the difference.
    filled = [column for column in columns_of(rows) if set(column.gaps) <= set(others)] if others else []
    lacking = {number: (column.name, way) for column in reversed(filled) for number, way in column.gaps.items()}
    return (next(iter(counted)), lacking) if len(lacking) == len(others) else (None, {})


def _layout_of(row: dict[str, Any], where: Location) -> str | None:
    """The layout of conversations that a row has; None for columns without one, and for plain text."""
    try:
        name, _ = Layout().normalised(row, where)
    except UserError:
        return None
    return name if name != "text" or len(row) == 1 else None


def _as_laid_out(layout: str, template: str | None) -> _Learned:
    """What is learned of rows of a known LAYOUT, with the TEMPLATE that was asked for, if any."""
    lines = [f"layout         = {toml(layout)}", "max_new_tokens = 64"]
    if layout == "text":
        return _Learned(lines, [], "full", ["texts, all of which are learned"])
    metrics, told = ["exact_match", "rouge", "eos_rate"], f"rows of layout {layout}, whose answers are learned"
    if template == "preferences":
        return _Learned(lines, metrics, "completion", ["pairs of a chosen and a rejected answer, the chosen ones are preferred"])
    if layout == "preference":
        lines.insert(1, "# of pairs, this training learns the chosen answers; to prefer them, see [training] below")
        told = "pairs of a chosen and a rejected answer"
    return _Learned(lines, metrics, "completion", [told])


def _as_columns(chosen: Chosen, template: str | None) -> _Learned:
    """What is learned of rows with plain columns, as CHOSEN, with the TEMPLATE that was asked for, if any."""
    answer, asked = chosen.answer, [column.name for column in chosen.asked]
    if template == "summarize":  # of several columns, that with the long texts
        asked = [max(chosen.asked, key=lambda column: sum(map(len, column.texts)) / max(1, len(column.texts))).name]
    prompt = "".join(f"{name}: {{{{ {name} }}}}\n" for name in asked) + f"{answer.name}:"
    if template == "classify":
        labels = ", ".join(sorted(set(answer.texts)))
        # A brace in a label would be one of the template.
        prompt = f"Classify the text{'' if '{' in labels else f' as one of: {labels}'}.\n{prompt}"
    elif template == "summarize":
        prompt = f"Summarize the text.\n{prompt}"
    longest = max(len(text.split()) for text in answer.texts)
    lines = [
        f"prompts        = [{toml(prompt)}]",
        f'teacher        = {{ kind = "gold", column = {toml(answer.name)} }}',
        'answer_prefix  = " "',
        f"max_new_tokens = {min(128, max(8, 3 * longest))}",
    ]
    told = [f"{answer.described()} is learned from {', '.join(asked)}"]
    if chosen.others:
        others = " or ".join(column.described() for column in chosen.others)
        told.append(f"{answer.name} is the answer because {chosen.why}; it could also be {others}: --answer {chosen.others[0].name}")
    if chosen.left_out:
        told.append(
            f"not in the prompt: {', '.join(f'{name.strip() or repr(name)}, which {why}' for name, why in chosen.left_out.items())}"
        )
    metrics = ["exact_match", "eos_rate"] if answer.is_labels else ["exact_match", "rouge", "eos_rate"]
    metrics = {"classify": ["classification", "eos_rate"], "summarize": ["rouge", "copy_rate", "length", "eos_rate"]}.get(
        template or "", metrics
    )
    return _Learned(lines, metrics, "completion", told, answer.name)


def _left_out(gaps: Gaps, lines: Sequence[Location], file: str) -> str:
    """The rows with GAPS, of those at LINES of FILE, as a phrase that names the first one."""
    first = min(gaps)
    column, way = gaps[first]
    place = f"line {lines[first].line} of {file}" if lines[first].line else file
    return f"{len(gaps)} of {len(lines)} rows: {column} {way} in {place}{', the first one' if len(gaps) > 1 else ''}"


_SPEC = """# A first experiment on your rows: trains a tiny model from scratch, to see the whole road in a minute.
# To look at rows, labels and tokens first:   engine preview specs/{name}.toml {task}
# What would run:                             engine plan
# Then set [model] to a real model, and the method to LoRA.

[experiment]
name = "{name}"
seed = 1

[model]                          # a real one: path = "/models/Qwen3-0.6B"; or id and revision on the hub
name         = "{model}"
architecture = {{ kind = "llama", hidden_size = 64, layers = 2, heads = 4, max_length = 512 }}
tokenizer    = {{ vocab_size = 2000 }}

[tasks.{task}]
{section}
split          = {{ validation = 0.1, test = 0.1 }}

[tokenization]                   # format = "chat" for a model with a chat template
mask        = {mask}
max_length  = 512
over_length = "truncate_prompt_left"

[mixture]
tasks = ["{task}"]

[training]
method        = "full"           # of a real model: {{ kind = "lora", r = 16, lora_alpha = 32 }}
epochs        = 2                # to prefer chosen answers: objective = "dpo", after a supervised training
global_batch  = {{ rows = 16 }}
learning_rate = 3e-3             # LoRA: 2e-4

[evaluation]
{evaluation}
"""
