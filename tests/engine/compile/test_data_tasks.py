"""What the data steps of a spec read, and what is told about them before anything runs."""

from pathlib import Path

import pytest

from engine.compile.compiler import compile_graph
from engine.core.errors import UserError
from engine.core.graph import Graph
from engine.spec.load import load_specs

HEAD = """
[experiment]
name = "x"

[model]
name = "tiny"
architecture = { kind = "gpt2", hidden_size = 16, layers = 1, heads = 2, max_length = 128 }
tokenizer = { tasks = ["first"] }

[mixture]
tasks = ["first"]

[training]
method = "full"
"""
GOLD = 'teacher = { kind = "gold", column = "answer" }'
JSONL = 'source = { kind = "jsonl", path = "data/a.jsonl" }'
OVERLAP = '{ kind = "overlap", against = { kind = "task", task = "third", split = "test" } }'
ASK = 'prompts = ["{{ text }}"]'


def compiled(folder: Path, *tasks: str) -> Graph:
    text = HEAD + "".join(f"\n[tasks.{name}]\n{lines}\n" for name, lines in (task.split("\n", 1) for task in tasks))
    (folder / "x.toml").write_text(text, "utf-8")
    return compile_graph(load_specs([folder / "x.toml"], folder))


def problem(folder: Path, *tasks: str):
    with pytest.raises(UserError) as caught:
        compiled(folder, *tasks)
    return caught.value.problems[0]


def reads(graph: Graph, step: str = "generate-first") -> dict[str, str]:
    return {role: item.path for role, item in graph[step].inputs.items()}


def test_every_file_that_a_task_names_is_an_input(tmp_path):
    task = f"""first
source = {{ kind = "jsonl", path = ["data/a.jsonl", "data/more/*.jsonl.gz"] }}
prompts = ["{{{{ text }}}}", {{ file = "prompts/x.jinja" }}]
system = {{ file = "prompts/system.jinja" }}
split = {{ test_source = {{ kind = "csv", path = "data/test.csv" }} }}
cleaning = ["duplicates", {{ kind = "overlap", against = {{ kind = "text", path = "data/held.txt" }} }}]
{GOLD}"""
    graph = compiled(tmp_path, task)
    assert reads(graph) == {
        "source/0": "data/a.jsonl",
        "source/1": "data/more",
        "prompts/1": "prompts/x.jinja",
        "system": "prompts/system.jinja",
        "cleaning/1/against": "data/held.txt",
        "test_source": "data/test.csv",
    }
    where = graph["generate-first"].inputs["test_source"].where
    assert where.source[where.column - 1 :].startswith('"data/test.csv"')
    split = graph["split-first"].parameters
    assert (split.validation, split.test, split.fixed) == (0.05, 0.0, True)


def test_tasks_read_each_other(tmp_path):
    first = 'first\nsource = { kind = "task", task = "second" }\nprompts = ["Judge: {{ completion }} {{ page }}"]\n' + GOLD.replace(
        "answer", "prompt"
    )
    second = f'second\n{JSONL}\n{ASK}\ncarry = ["page"]\n{GOLD}\ncleaning = [{OVERLAP}]'
    graph = compiled(tmp_path, first, second, f"third\n{JSONL}\n{ASK}\n{GOLD}")
    assert reads(graph) == {"source": "artifacts/generate-second/rows.jsonl"}
    assert reads(graph, "generate-second")["cleaning/0/against"] == "artifacts/split-third/test.jsonl"
    assert graph["generate-first"].inputs["source"].producer == "generate-second"


@pytest.mark.parametrize(
    ("task", "what", "hint"),
    [
        ('source = { kind = "task", task = "secnod" }', "this spec has no task 'secnod'", "did you mean 'second'?"),
        ('source = { kind = "task", task = "second" }', "tasks read each other's rows in a cycle: first -> second -> first", ""),
        ('source = { kind = "jsonl", path = "../a.jsonl" }', "'../a.jsonl' is outside the workspace", "absolute"),
        ('source = { kind = "jsonl", path = ["a.jsonl", "../b.jsonl"] }', "'../b.jsonl' is outside the workspace", "absolute"),
        ('source = { kind = "jsonl", path = "a", where = "n >" }', "invalid Jinja expression", ""),
        ('source = { kind = "jsonl", path = "a", sample = {} }', "a sample needs either rows or share", ""),
    ],
)
def test_what_is_wrong_with_a_source_is_told_where_it_stands(tmp_path, task, what, hint):
    second = f'second\nsource = {{ kind = "task", task = "first" }}\nprompts = ["{{{{ prompt }}}}"]\n{GOLD.replace("answer", "prompt")}'
    found = problem(tmp_path, f'first\n{task}\nprompts = ["{{{{ prompt }}}}"]\n{GOLD.replace("answer", "prompt")}', second)
    assert found.what.startswith(what) and hint in (found.hint or "") and found.where.line > 15


@pytest.mark.parametrize(
    ("lines", "field", "hint"),
    [
        ('prompts = ["{{ txt }}"]\nteacher = { kind = "rules", rule = "topic" }', "txt", "did you mean 'text'?"),
        ('prompts = ["{{ text }}{% if a %}{{ a }}{% endif %}{{ b | upper }}"]\nteacher = { kind = "rules", rule = "topic" }', "b", ""),
        ('prompts = ["{{ text }}"]\nteacher = { kind = "gold", column = "answer" }', "answer", ""),
        ('prompts = ["{{ text }}"]\nteacher = { kind = "rules", rule = "topic" }\nsplit = { group_by = "page" }', "page", ""),
        ('prompts = ["{{ text }}"]\nsystem = "{{ who }}"\nteacher = { kind = "rules", rule = "topic" }', "who", ""),
    ],
)
def test_fields_that_no_synthetic_row_has_are_told_before_the_run(tmp_path, lines, field, hint):
    found = problem(tmp_path, f'first\nsource = {{ kind = "synthetic", generator = "reports" }}\n{lines}')
    assert found.what == f"task 'first' uses column '{field}', which its source does not have" and hint in (found.hint or "")


def test_made_columns_and_carried_ones_are_known(tmp_path):
    synthetic = 'source = { kind = "synthetic", generator = "reports", columns = { long = "text | length > 40" } }'
    topic = 'teacher = { kind = "rules", rule = "topic" }\ncarry = ["text"]'
    other = f'other\n{synthetic}\nprompts = ["{{{{ text }}}} {{{{ long }}}}"]\n{topic}'
    chained = 'source = { kind = "task", task = "other" }\nteacher = { kind = "gold", column = "completion" }'
    first = f'first\n{chained}\nprompts = ["{{{{ text }}}} {{{{ completion }}}}"]'
    assert compiled(tmp_path, first, other)
    assert "uses column 'title'" in problem(tmp_path, first.replace("{{ text }}", "{{ title }}"), other).what


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("{ }", (0.05, 0.1, False)),
        ('{ column = "part" }', (0.0, 0.0, True)),
        ('{ column = "part", validation = 0.2 }', (0.2, 0.0, True)),
        ('{ test_source = { kind = "jsonl", path = "t" }, test = 0.1 }', (0.05, 0.1, True)),
    ],
)
def test_shares_that_are_not_given_follow_from_what_is_fixed(tmp_path, split, expected):
    parameters = compiled(tmp_path, f"first\n{JSONL}\n{ASK}\n{GOLD}\nsplit = {split}")["split-first"].parameters
    assert (parameters.validation, parameters.test, parameters.fixed) == expected


def test_shares_belong_to_the_rows_only_where_examples_depend_on_them(tmp_path):
    def recipe(lines: str):
        return compiled(tmp_path, f"first\n{JSONL}\n{ASK}\n{GOLD}\n{lines}")["generate-first"].parameters

    assert recipe("split = { test = 0.2 }") == recipe("split = { test = 0.3 }")
    shots = 'few_shot = { count = 1, answer = "answer" }\n'
    assert recipe(shots + "split = { test = 0.2 }") != recipe(shots + "split = { test = 0.3 }")


@pytest.mark.parametrize(("layout", "wrong"), [("auto", False), ("text", True)])
def test_a_layout_brings_its_questions(tmp_path, layout, wrong):
    task = f'first\n{JSONL}\nlayout = "{layout}"'
    if wrong:
        assert "no predictions can be generated" in problem(tmp_path, task).what
    else:
        assert compiled(tmp_path, task)["generate-first"].parameters.layout.kind == layout
