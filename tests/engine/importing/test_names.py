"""Names of imported tasks: rows that several specs read alike are one task, others have names of their own."""

import tomllib

BASE = "base_model: a/b\nsequence_len: 64\nmicro_batch_size: 1\nlearning_rate: 1e-5\n"


def tasks(text: str) -> dict:
    return tomllib.loads(text)["tasks"]


def test_a_task_that_another_spec_defines_otherwise_gets_the_name_of_its_experiment(imported, write, workspace):
    (workspace / "specs").mkdir()
    (workspace / "specs/other.toml").write_text(
        '[tasks.rows]\nsource = { kind = "hub", id = "a/rows", revision = "x", limit = 5 }\n[tasks.rows.split]\nvalidation = 0.5\n', "utf-8"
    )
    found = imported(write(BASE + "datasets: [{path: a/rows, type: alpaca}]\nval_set_size: 0.1\n", "mine.yml"))
    (text,) = found.files.values()
    assert [*tasks(text)] == ["rows-mine"] and tomllib.loads(text)["mixture"]["tasks"] == ["rows-mine"]
    assert "tasks.rows-mine.split.validation" in found.specs[0].as_data()["keys"][-1]["spec"] + [
        ours for entry in found.specs[0].entries for ours in entry.ours
    ]
    assert [*found.specs[0].theirs] == ["rows-mine"]


def test_configurations_that_read_the_same_rows_in_one_way_share_the_task(imported, write):
    one = write(BASE + "datasets: [{path: a/rows, type: alpaca}]\n", "one.yml")
    other = write(BASE + "datasets: [{path: a/rows, type: alpaca}]\nseed: 3\n", "other.yml")
    found = imported(one, other)
    (part,) = [text for path, text in found.files.items() if "/parts/" in path]
    assert [*tasks(part)] == ["rows"]


def test_tokenizations_that_differ_are_named(imported, write):
    one = write(BASE + "datasets: [{path: a/rows, type: alpaca}]\n", "one.yml")
    other = write(BASE.replace("64", "128") + "datasets: [{path: a/rows, type: alpaca}]\n", "other.yml")
    files = imported(one, other).files
    assert tomllib.loads(files["specs/other.toml"])["tokenization"]["name"] == "other"
    assert "name" not in tomllib.loads(files["specs/one.toml"])["tokenization"]
