"""A benchmark that nobody defines is refused before anything runs, and one that somebody defines never."""

from pathlib import Path

import pytest

from engine.compile.benchmarks import _folder, _mentioned, _names, _published
from engine.compile.compiler import targets
from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project
from engine.results.table import benchmark_table, results
from tests.support.commands import engine
from tests.support.toys import model, toy

TASK = """\
source = { kind = "synthetic", generator = "reports", rows = 9 }
prompts = ["Say {{ text }}"]
teacher = { kind = "gold", column = "text" }"""


def project(folder: Path, benchmarks: str) -> Project:
    (folder / "specs").mkdir()
    (folder / "own").mkdir()
    (folder / "own/mine.yaml").write_text("task: my_words\ntag:\n  - my_tag\n")
    (folder / "specs/one.toml").write_text(toy({"a": TASK}, "one", model(name="toy"), '"lora"', more=f"\n[benchmarks]\n{benchmarks}\n"))
    return Project(Workspace.at(folder))


def test_the_step_reads_the_model_the_adapter_and_the_definitions(tmp_path: Path):
    found = project(tmp_path, 'tasks = ["my_words", "my_tag"]\nfolder = "own"\nlimit = 5')
    step = found.graph["benchmark-one"]
    assert {role: item.path for role, item in step.inputs.items()} == {
        "model": "artifacts/initialize-toy",
        "adapter": "artifacts/train-one",
        "tasks": "own",
    }
    assert targets(found.specs[0]) == ("score-one", "benchmark-one")
    assert step.parameters.limit == 5 and step.parameters.tasks == ("my_words", "my_tag")


@pytest.mark.parametrize(
    ("benchmarks", "messages"),
    [
        ('tasks = ["my_wrods"]\nfolder = "own"', ["no task 'my_wrods'", "specs/one.toml:20:10", "did you mean 'my_words'?"]),
        ('tasks = ["my_words"]\nfolder = "ownn"', ["folder not found: ownn", "specs/one.toml:21:10"]),
        ('tasks = ["my_words"]\nfolder = "../own"', ["is outside the workspace", "specs/one.toml:21:10"]),
        ("tasks = []", ["specs/one.toml:20"]),
        ('task = ["my_words"]', ["unknown key 'task'", "did you mean 'tasks'?"]),
    ],
)
def test_what_nobody_defines_is_refused(tmp_path: Path, benchmarks: str, messages: list[str]):
    if "wrods" in benchmarks and _folder() is None:
        pytest.skip("lm-evaluation-harness is not installed")
    with pytest.raises(UserError) as caught:
        _ = project(tmp_path, benchmarks).graph
    assert all(message in str(caught.value) for message in messages), str(caught.value)


def test_published_names_are_known():
    if _folder() is None:
        pytest.skip("lm-evaluation-harness is not installed")
    published = _published()
    assert published and {"mmlu", "glue", "mmlu_abstract_algebra", "gsm8k", "bigbench_generate_until", "ai2_arc"} <= published
    assert _mentioned("truthfulqa-multi") and not _mentioned("no_such_task_at_all")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("task: one\ntag: [two, 'three']\n", {"one", "two", "three"}),
        ('"task": "four"\n', {"four"}),
        ("group: five\ntask:\n  - six\n  - task: seven # a remark\n", {"five", "six", "seven"}),
    ],
)
def test_names_are_found_in_every_notation(tmp_path: Path, text: str, names: set[str]):
    (tmp_path / "some.yaml").write_text(text)
    assert names <= _names(tmp_path)


def test_values_of_benchmarks_are_among_the_results(tmp_path: Path):
    found = project(tmp_path, 'tasks = ["my_words"]\nfolder = "own"')
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/evaluate-one.json").write_text('{"a": {"exact_match": 0.5}}')
    (tmp_path / "metrics/benchmark-one.json").write_text('{"my_words": {"acc": 0.25, "rows": 4}, "seconds": 3}')
    (result,) = results(found.specs, found.graph, found.store(), found.plan())
    assert result.benchmarks == {"my_words": {"acc": 0.25, "rows": 4}} and not result.benchmarks_current
    assert benchmark_table([result]) == [["one", "my_words", "acc", "0.2500", "4", "stale"]]
    shown = engine(tmp_path, "results").stdout
    assert "benchmarks" in shown and "my_words" in shown and "0.2500" in shown
