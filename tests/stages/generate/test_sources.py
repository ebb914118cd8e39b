"""Sources of files: every format gives the same rows, in one order, with located errors."""

import csv
import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from engine.errors import UserError
from engine.part import with_tuples
from stages.common.jsonl import dumps
from stages.generate.sources.csv import Csv
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.parquet import Parquet
from stages.generate.sources.task import TaskRows
from stages.generate.sources.text import Text

ROWS = [{"text": f'row {n}, "quoted"\nsecond line \u2028 é', "n": str(n)} for n in range(3)]
LINES = "".join(dumps(row) + "\n" for row in ROWS).encode()


def write_csv(path):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "n"], delimiter="\t")
        writer.writeheader()
        writer.writerows(ROWS)


FORMATS = {
    "rows.jsonl": (Jsonl, {}, lambda path: path.write_bytes(LINES)),
    "rows.jsonl.gz": (Jsonl, {}, lambda path: path.write_bytes(gzip.compress(LINES[:50]) + gzip.compress(LINES[50:]))),
    "rows.jsonl.zst": (Jsonl, {}, lambda path: path.write_bytes(zstandard.compress(LINES[:50]) + zstandard.compress(LINES[50:]))),
    "rows.json": (Json, {}, lambda path: path.write_text(json.dumps(ROWS), "utf-8")),
    "data.json": (Json, {"rows": "data"}, lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS}), "utf-8")),
    "rows.tsv": (Csv, {"delimiter": "\t"}, write_csv),
    "rows.parquet": (Parquet, {}, lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path)),
}


def read(source, *paths):
    return list(source.read(paths))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows_with_their_place(tmp_path, name):
    member, options, write = FORMATS[name]
    write(tmp_path / name)
    found = read(member(path=name, **options), tmp_path / name)
    assert [row for _, row in found] == ROWS
    assert len({str(where) for where, _ in found}) == 3 and all(name in where.file for where, _ in found)


def test_several_files_are_read_in_their_order_and_a_pattern_by_name(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"n": "{name}"}}\n', "utf-8")
    (tmp_path / "notes.txt").write_text("not a row", "utf-8")
    listed = read(Jsonl(path=("x/b.jsonl", "x/a.jsonl")), tmp_path / "b.jsonl", tmp_path / "a.jsonl")
    assert [row["n"] for _, row in listed] == ["b", "a"]
    pattern = Jsonl(path="x/*.jsonl")
    assert [need.path for need in pattern.needs()] == ["x"] and [row["n"] for _, row in read(pattern, tmp_path)] == ["a", "b", "c"]
    assert [need.name for need in Jsonl(path=("x/b", "y/*/c")).needs()] == ["0", "1"] and Jsonl(path=("y/*/c",)).needs()[0].path == "y"
    with pytest.raises(UserError, match=r"no file matches x/\*\.csv"):
        read(Csv(path="x/*.csv"), tmp_path)
    with pytest.raises(UserError, match="is a folder"):
        read(Jsonl(path="x"), tmp_path)
    with pytest.raises(ValidationError, match="must begin with a folder"):
        Jsonl(path="*.jsonl")


@pytest.mark.parametrize(
    ("source", "content", "said", "line"),
    [
        (Json(path="x"), b"{}", "holds an object, not a list of rows", None),
        (Json(path="x"), b"[1]", "this row is a number", None),
        (Json(path="x"), b'[{"a": 1},\n {"a": }]', "no JSON", 2),
        (Json(path="x"), b'{"a": 1}\n{"a": 2}', 'each line is a JSON object, take kind = "jsonl"', 2),
        (Json(path="x", rows="dat"), b'{"data": []}', "did you mean 'data'?", None),
        (Csv(path="x"), b"", "no header line", 1),
        (Csv(path="x"), b"a,a\n1,2\n", "names column 'a' twice", 1),
        (Csv(path="x"), b"a,b\n1,2\n3\n", "has 1 values, the header names 2", 3),
        (Csv(path="x"), b'a,b\n1,"2\n', "no CSV", 2),
        (Csv(path="x"), b"a\n\xff\n", "not UTF-8", 2),
        (Parquet(path="x"), b"PAR1 not", "no Parquet file", None),
        (Text(path="x"), b"a\n\xff\n", "not UTF-8", 2),
        (Jsonl(path="x"), b'{"a": 1}\n{"a": \n', "no JSON", 2),
    ],
)
def test_what_a_file_cannot_be_is_the_users_error(tmp_path, source, content, said, line):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(source, tmp_path / "x")
    assert said in str(caught.value) and caught.value.problems[0].where.line in (line, None) and "x" in caught.value.problems[0].where.file


@pytest.mark.parametrize(("ending", "content"), [("gz", gzip.compress(LINES * 99)), ("zst", zstandard.compress(LINES * 99))])
@pytest.mark.parametrize("kept", [-3, 30])
def test_a_cut_compressed_file_is_no_shorter_file(tmp_path, ending, content, kept):
    path = tmp_path / f"rows.jsonl.{ending}"
    path.write_bytes(content[:kept])
    with pytest.raises(UserError, match="cannot be uncompressed"):
        read(Jsonl(path="x"), path)


def test_parquet_values_become_json_values(tmp_path):
    day, moment = datetime.date(2024, 2, 29), datetime.datetime(2024, 1, 1, 12, 30)
    table = pa.table(
        {"day": [day], "moment": [moment], "score": [float("nan")], "items": [[{"a": 1}]], "none": pa.array([None], pa.string())}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    ((_, row),) = read(Parquet(path="x"), tmp_path / "x.parquet")
    assert row == {"day": "2024-02-29", "moment": "2024-01-01T12:30:00", "score": None, "items": [{"a": 1}], "none": None}
    pq.write_table(pa.table({"raw": [b"bytes"]}), tmp_path / "raw.parquet")
    with pytest.raises(UserError, match="column 'raw' holds a value of type bytes"):
        read(Parquet(path="x"), tmp_path / "raw.parquet")


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("file", [(1, "One.\n still\n\n \nTwo\r\nlines\n")]),
        ("blank_line", [(1, "One.\n still"), (5, "Two\r\nlines")]),
        ("line", [(1, "One."), (2, " still"), (5, "Two"), (6, "lines")]),
    ],
)
def test_text_is_cut_where_it_is_asked_to_be(tmp_path, split, expected):
    path = tmp_path / "page.v1.txt"
    path.write_bytes(b"\xef\xbb\xbfOne.\n still\n\n \nTwo\r\nlines\n")
    found = read(Text(path="x", split=split), path)
    assert [(where.line, row["text"]) for where, row in found] == expected and {row["file"] for _, row in found} == {"page"}
    path.write_bytes(b"\n \n")
    assert read(Text(path="x", split=split), path) == []


def test_rows_of_another_task_bring_what_it_carries(tmp_path):
    row = {"id": "1", "group": "g", "carried": {"title": "t"}, "prompt": "p", "completion": "c"}
    (tmp_path / "rows.jsonl").write_text(dumps(row) + "\n", "utf-8")
    source = TaskRows(task="other", split="test")
    assert [row for _, row in read(source, tmp_path / "rows.jsonl")] == [
        {"id": "1", "group": "g", "title": "t", "prompt": "p", "completion": "c"}
    ]
    (need,) = source.needs()
    assert (need.task, need.split) == ("other", "test") and source.group_column() == "group"
    assert with_tuples({"path": ["a"]}) == {"path": ("a",)}
