"""Every sort of mistake: what is said, where the caret stands, and the hint."""

import re
from itertools import combinations
from typing import Self, get_args

import pytest
from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Part
from engine.spec import tree
from engine.spec.problems import problems
from stages.generate.sources import Source

SOURCES = ", ".join(sorted(member.model_fields["kind"].default for member in get_args(get_args(Source)[0])))

# replaced text of the valid spec, replacement, what is said, what the caret marks, hint (a part of it)
MISTAKES = {
    "control token in a prompt": (
        "[mixture]",
        '[tokenization]\nspecial_tokens = ["headline"]\n[mixture]',
        "this prompt contains the special token headline, which would be encoded as text; put it into tokenization.format",
        '"Write a headline.\\n\\n{{ text }}"',
        None,
    ),
    "unknown key": ('name = "headline"', 'name = "headline"\nsed = 1', "unknown key 'sed' in experiment", "sed", "did you mean 'seed'?"),
    "unknown key, none near": (
        'name = "headline"',
        'name = "headline"\nzz = 1',
        "unknown key 'zz' in experiment",
        "zz",
        "known: description, name, seed",
    ),
    "unknown section": ("[training]", "[trainnig]", "unknown section 'trainnig'", "trainnig", "did you mean 'training'?"),
    "unknown key of a family's member": (
        "hidden_size = 64",
        "hiden_size = 64",
        "unknown key 'hiden_size' in model.architecture of kind 'llama'",
        "hiden_size",
        "did you mean 'hidden_size'?",
    ),
    "key of another member": (
        "hidden_size = 64",
        "new_decoder_architecture = true",
        "unknown key 'new_decoder_architecture' in model.architecture of kind 'llama'",
        "new_decoder_architecture",
        "'new_decoder_architecture' is a key of kind 'falcon'",
    ),
    "key of another sort of model": (
        'name = "tiny"',
        'name = "tiny"\nrevision = "1"',
        "unknown key 'revision' in model",
        "revision",
        "'revision' is a key of a model with 'id'",
    ),
    "unknown key in a dotted key": (
        'method = "lora"',
        'method.kind = "lora"\nmethod.alpha = 3',
        "unknown key 'alpha' in training.method of kind 'lora'",
        "alpha",
        "did you mean 'lora_alpha'?",
    ),
    "unknown kind": ('"jsonl"', '"jsnl"', "unknown kind 'jsnl' of tasks.headline.source", '"jsnl"', "did you mean 'jsonl'?"),
    "unknown kind by name alone": ('"lora"', '"lorra"', "unknown kind 'lorra' of training.method", '"lorra"', "did you mean 'lora'?"),
    "kind that is no text": (
        '"jsonl"',
        "3",
        "tasks.headline.source.kind must be a string, not the integer 3",
        "3",
        f"known: {SOURCES}",
    ),
    "kind that is a table": ('"jsonl"', "{}", "tasks.headline.source.kind must be a string, not a table", "{}", f"known: {SOURCES}"),
    "kind missing": (
        'kind = "jsonl", ',
        "",
        "missing key 'kind' in tasks.headline.source",
        "source",
        f"kind is one of: {SOURCES}",
    ),
    "no name and no table": (
        '"lora"',
        "3",
        "training.method must be the name of a kind or a table with the key kind, not the integer 3",
        "3",
        "kind is one of: full, ia3, lora, ",
    ),
    "unknown value": (
        '"lora"',
        '{ kind = "lora", target_modules = "all-liner" }',
        "unknown value 'all-liner' of training.method.target_modules",
        '"all-liner"',
        "did you mean 'all-linear'?",
    ),
    "several sorts allowed, none given": (
        '"lora"',
        '{ kind = "lora", target_modules = 3 }',
        "training.method.target_modules must be 'all-linear' or an array of strings, not the integer 3",
        "3",
        "target_modules: Layers with an update",
    ),
    "several sorts allowed, wrong inside one": (
        '"lora"',
        '{ kind = "lora", target_modules = ["q", 3] }',
        "training.method.target_modules[1] must be a string, not the integer 3",
        "3",
        None,
    ),
    "missing key, table with header": (
        'name = "headline"',
        "",
        "missing key 'name' in experiment",
        "experiment",
        "name: Name of the experiment",
    ),
    "missing key, inline table": (
        ', path = "data/articles.jsonl"',
        "",
        "missing key 'path' in tasks.headline.source of kind 'jsonl'",
        "source",
        "path: A file",
    ),
    "missing key, name alone": (
        '{ kind = "gold", column = "title" }',
        '"gold"',
        "missing key 'column' in tasks.headline.teacher",
        '"gold"',
        'write { kind = "gold", column = ... }',
    ),
    "integer": (
        "64",
        '"64"',
        "model.architecture.hidden_size must be an integer, not the string '64'",
        '"64"',
        "hidden_size: Width",
    ),
    "integer, truth value": ("64", "true", "model.architecture.hidden_size must be an integer, not true", "true", "hidden_size:"),
    "integer, fraction": (
        "64",
        "6.5",
        "model.architecture.hidden_size must be an integer, not the number 6.5",
        "6.5",
        "hidden_size:",
    ),
    "integer, whole fraction": (
        "64",
        "64.0",
        "model.architecture.hidden_size must be an integer, not the number 64.0",
        "64.0",
        None,
    ),
    "number": (
        'method = "lora"',
        'method = "lora"\nweight_decay = "no"',
        "training.weight_decay must be a number, not the string 'no'",
        '"no"',
        "weight_decay: Decoupled",
    ),
    "text": ('"title"', "['title']", "tasks.headline.teacher.column must be a string, not an array", "['title']", "column:"),
    "array": (
        *('["headline"]', '"headline"', "mixture.tasks must be an array of strings, not the string 'headline'"),
        *('"headline"', "[...]; tasks: "),
    ),
    "table": (
        "[training]",
        "[training]\nglobal_batch = 3",
        "training.global_batch must be a table, not the integer 3",
        "3",
        "write { key = ... }; keys: rows, tokens; global_batch:",
    ),
    "too few values": ("[training]", "[training]\nbetas = [0.9]", "training.betas needs 2 values, got 1", "[0.9]", None),
    "too many values": (
        "[training]",
        "[training]\nbetas = [0.9, 0.9, 0.9]",
        "training.betas is too long",
        "[0.9, 0.9, 0.9]",
        "at most 2 values",
    ),
    "greater than": ("64", "0", "model.architecture.hidden_size must be greater than 0, not 0", "0", "hidden_size:"),
    "at least": ('name = "headline"', 'name = "headline"\nseed = -1', "experiment.seed must be at least 0, not -1", "-1", "seed:"),
    "less than": (
        "[mixture]",
        "[tasks.headline.split]\ntest = 1.0\n[mixture]",
        "tasks.headline.split.test must be less than 1, not 1",
        "1.0",
        "test:",
    ),
    "at most": (
        'name = "tiny"',
        'name = "tiny"\ntokenizer = { vocab_size = 2_000_000 }',
        "model.tokenizer.vocab_size must be at most 1000000, not 2000000",
        "2_000_000",
        "vocab_size:",
    ),
    "empty text": ('"title"', '""', "tasks.headline.teacher.column must not be empty", '""', "column:"),
    "empty array": ('["headline"]', "[]", "mixture.tasks must not be empty", "[]", "tasks:"),
    "no name": (
        'name = "tiny"',
        'name = "Tiny Model"',
        "invalid name 'Tiny Model'",
        '"Tiny Model"',
        "lower-case letters and digits, separated by '-' or '_', such as 'tiny-model'",
    ),
    "no name for a key": ("[tasks.headline]", '[tasks."Head line"]', "invalid name 'Head line'", '"Head line"', "such as 'head-line'"),
    "name too long": ('name = "tiny"', f'name = "{"x" * 61}"', "model.name is too long", f'"{"x" * 61}"', "at most 60 characters"),
    "no model": ('architecture = { kind = "llama", hidden_size = 64 }', "", "model needs one of the keys architecture", "model", None),
    "misspelled model": (
        "architecture",
        "architectur",
        "model needs one of the keys architecture",
        "model",
        "did you mean 'architecture'?",
    ),
    "revision of no commit": (
        'name = "tiny"\narchitecture = { kind = "llama", hidden_size = 64 }',
        'id = "a/b"\nrevision = "main"',
        "model.revision must be a full commit hash (40 hex digits), got 'main'",
        '"main"',
        "engine pin",
    ),
    "a rule of a section": ("64", "65", "hidden_size (65) must be divisible by heads (4)", '{ kind = "llama", hidden_size = 65 }', None),
    "unknown task of the mixture": (
        '["headline"]',
        '["headline", "headlin"]',
        "this spec has no task 'headlin'",
        '"headlin"',
        "did you mean 'headline'?",
    ),
    "unknown task of the evaluation": (
        "[mixture]",
        '[evaluation]\ntasks = ["x"]\n[mixture]',
        "this spec has no task 'x'",
        '"x"',
        "known: headline",
    ),
    "unknown task of the tokenizer": (
        'name = "tiny"',
        'name = "tiny"\ntokenizer = { tasks = ["topic"] }',
        "this spec has no task 'topic'",
        '"topic"',
        "known: headline",
    ),
    "source outside": (
        '"data/articles.jsonl"',
        '"data/../../articles.jsonl"',
        "'data/../../articles.jsonl' is outside the workspace",
        '"data/../../articles.jsonl"',
        "use an absolute path",
    ),
    "model outside": (
        'name = "tiny"\narchitecture = { kind = "llama", hidden_size = 64 }',
        'path = "../model"',
        "'../model' is outside the workspace",
        '"../model"',
        "use an absolute path",
    ),
    "GGUF file outside": (
        'name = "tiny"\narchitecture = { kind = "llama", hidden_size = 64 }',
        'gguf = "../model.gguf"',
        "'../model.gguf' is outside the workspace",
        '"../model.gguf"',
        "use an absolute path",
    ),
    "file of another type": (
        'name = "tiny"\narchitecture = { kind = "llama", hidden_size = 64 }',
        'gguf = "model.bin"',
        "model.gguf must be a file that ends in .gguf, got 'model.bin'",
        '"model.bin"',
        "GGUF file",
    ),
    "broken template": (
        "{{ text }}",
        "{{ text }",
        "invalid Jinja template: unexpected '}' (line 3 of the template)",
        '"Write a headline.\\n\\n{{ text }"',
        None,
    ),
    "date": ('name = "headline"', "name = 1979-05-27", "dates and times are not allowed in a spec", "1979-05-27", "in quotes"),
    "time inside an array": ('["headline"]', "[07:32:00]", "dates and times are not allowed in a spec", "07:32:00", "in quotes"),
    "not a number": ("64", "nan", "inf and nan are not allowed in a spec", "nan", "remove the key"),
    "infinite": ("64", "-inf", "inf and nan are not allowed in a spec", "-inf", None),
    "infinite by size": ("64", "1e999", "inf and nan are not allowed in a spec", "1e999", None),
    "extends is a text": (
        "[experiment]",
        'extends = "b.toml"\n[experiment]',
        "extends must be an array of paths, not the string 'b.toml'",
        '"b.toml"',
        "write extends = [",
    ),
    "extends holds a number": (
        "[experiment]",
        "extends = [3]\n[experiment]",
        "extends must be an array of paths, not the integer 3",
        "3",
        "write extends = [",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_shown_where_it_stands(mistake, fails, valid):
    old, new, what, marked, hint = MISTAKES[mistake]
    assert old in valid
    found = fails(valid.replace(old, new, 1))
    problem = next((p for p in found if p.what.startswith(what)), None)
    assert problem, [p.what for p in found]
    where = problem.where
    assert where.file == "specs/a.toml"
    assert where.source[where.column - 1 :][: where.length] == marked
    assert where.source == valid.replace(old, new, 1).split("\n")[where.line - 1]
    assert (hint is None) or (hint in (problem.hint or ""))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_message_speaks_python_or_pydantic(mistake, fails, valid):
    old, new, *_ = MISTAKES[mistake]
    for problem in fails(valid.replace(old, new, 1)):
        assert not re.search(
            r"\b([Ii]nput|NoneType|str|int|dict|tuple|Literal|Extra|Field|instance|Value error|ctx)\b", f"{problem.what} {problem.hint}"
        )


def test_a_missing_section_is_shown_at_the_file(fails, valid):
    (problem,) = fails(valid.replace('[mixture]\ntasks = ["headline"]\n', ""))
    assert str(problem) == "error: missing section [mixture]\n  --> specs/a.toml\n  hint: mixture: The tasks to train on."


SECTIONS = ("experiment", "model", "tasks", "mixture", "training")


@pytest.mark.parametrize("missing", [names for count in range(1, 6) for names in combinations(SECTIONS, count) if names != SECTIONS[3:]])
def test_all_missing_sections_are_told_at_once(missing, fails, valid):
    parts = re.split(r"^(?=\[)", valid, flags=re.MULTILINE)
    found = fails("".join(part for part in parts if not any(part.startswith((f"[{name}]", f"[{name}.")) for name in missing)))
    told = {problem.what.removeprefix("missing section ").strip("[]") for problem in found}
    # Without both a mixture and a training, the model is evaluated as it is.
    assert told == set(missing) - (set(SECTIONS[3:]) if set(SECTIONS[3:]) <= set(missing) else set())


def test_two_rules_at_once_are_shown_in_the_order_of_the_file(fails, valid):
    text = valid.replace('"lora"', '"lorra"').replace("64", "0").replace('["headline"]', '["topic"]').replace("column", "colum")
    assert [problem.where.line for problem in fails(text)] == [6, 11, 11, 14, 17]


def test_a_whole_error_as_it_is_printed(fails, valid):
    found = fails(valid.replace("hidden_size = 64", "hiden_size = 64").replace('"headline"]', '"headlin"]'))
    assert "\n\n".join(map(str, found)) == (
        "error: unknown key 'hiden_size' in model.architecture of kind 'llama'\n"
        "  --> specs/a.toml:6:34\n"
        '  6 | architecture = { kind = "llama", hiden_size = 64 }\n'
        "    |                                  ^^^^^^^^^^\n"
        "  hint: did you mean 'hidden_size'?\n"
        "\n"
        "error: this spec has no task 'headlin'\n"
        "  --> specs/a.toml:14:10\n"
        '  14 | tasks = ["headlin"]\n'
        "     |          ^^^^^^^^^\n"
        "  hint: did you mean 'headline'?"
    )


def test_a_multi_line_value_is_marked_on_its_first_line(fails, valid):
    (problem,) = fails(valid.replace('["headline"]', '"""\nheadline\n"""'))
    assert str(problem).split("\n")[1:4] == ["  --> specs/a.toml:14:9", '  14 | tasks = """', "     |         ^^^"]


def test_a_very_large_number_is_no_crash(fails, valid):
    (problem,) = fails(valid.replace('"lora"', f'"lora"\nlearning_rate = 1{"0" * 400}'))
    assert problem.where.line == 18 and "learning_rate" in problem.what


class Range(Part):
    low: int
    high: int

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise PydanticCustomError("range", "low must not be above high", {"at": ("high",)})
        return self


class Ranges(Part):
    rows: tuple[Range, ...]


def test_a_rule_may_say_which_key_it_is_about(write):
    document = tree.read(write("rows = [{ low = 1, high = 2 }, { low = 3, high = 2 }]\n"), "a.toml")
    with pytest.raises(ValidationError) as caught:
        Ranges.model_validate(document.plain())
    ((path, problem),) = problems(caught.value.errors(), document, Ranges)
    assert (path, problem.what, str(problem.where)) == (("rows", 1, "high"), "low must not be above high", "a.toml:1:50")
