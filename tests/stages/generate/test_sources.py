"""Sources of files: every format gives the same rows, in one order, with located errors."""

import bz2
import csv
import datetime
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from engine.core.errors import UserError
from engine.core.part import with_tuples
from stages.generate.sources.csv import Csv
from stages.generate.sources.json import Json
from stages.generate.sources.jsonl import Jsonl
from stages.generate.sources.parquet import Parquet
from stages.generate.sources.task import TaskRows
from stages.generate.sources.text import Text
from stages.rows.jsonl import dumps

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
    "rows.csv.gz": (Csv, {"delimiter": "\t"}, lambda path: (write_csv(path), path.write_bytes(gzip.compress(path.read_bytes())))),
    "rows.csv.zst": (Csv, {"delimiter": "\t"}, lambda path: (write_csv(path), path.write_bytes(zstandard.compress(path.read_bytes())))),
    "rows.json.gz": (Json, {}, lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))),
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
    with pytest.raises(ValidationError, match="must start with a folder"):
        Jsonl(path="*.jsonl")


@pytest.mark.parametrize(
    ("source", "content", "said", "line"),
    [
        (Json(path="x"), b"{}", "must contain a list of rows, got an object", None),
        (Json(path="x"), b"[1]", "a row must be an object, got a number", None),
        (Json(path="x"), b'[{"a": 1},\n {"a": }]', "not valid JSON", 2),
        (Json(path="x"), b'{"a": 1}\n{"a": 2}', 'each line is a JSON object, use kind = "jsonl"', 2),
        (Json(path="x", rows="dat"), b'{"data": []}', "did you mean 'data'?", None),
        (Csv(path="x"), b"", "no header line", 1),
        (Csv(path="x"), b"a,a\n1,2\n", "names column 'a' twice", 1),
        (Csv(path="x"), b"a,b\n1,2\n3\n", "has 1 values, the header names 2", 3),
        (Csv(path="x"), b'a,b\n1,"2\n', "invalid CSV", 2),
        (Csv(path="x"), b"a\n\xff\n", "not UTF-8", 2),
        (Parquet(path="x"), b"PAR1 not", "cannot read this Parquet file", None),
        (Text(path="x"), b"a\n\xff\n", "not UTF-8", 2),
        (Jsonl(path="x"), b'{"a": 1}\n{"a": \n', "not valid JSON", 2),
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
    with pytest.raises(UserError, match="cannot decompress this file"):
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
    with pytest.raises(UserError, match="column 'raw' has the unsupported type bytes"):
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


STRUCT = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
TWICE = {
    "a": (["q", "a", "a"], [pa.array(["q"])] * 3),
    "": (["", ""], [pa.array(["q"])] * 2),
    "s.x": (["q", "s"], [pa.array(["q"]), STRUCT]),
    "l.x": (["l"], [pa.ListArray.from_arrays([0, 1], STRUCT)]),
    "m.x": (["m"], [pa.MapArray.from_arrays([0, 1], pa.array(["k"]), STRUCT)]),
    "o.s.x": (["o"], [pa.StructArray.from_arrays([STRUCT], names=["s"])]),
}


@pytest.mark.parametrize("name", TWICE)
def test_parquet_columns_of_one_name_are_refused_at_any_depth(tmp_path, name):
    names, arrays = TWICE[name]
    pq.write_table(pa.Table.from_arrays(arrays, names=names), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=f"has two columns named '{name}'"):
        read(Parquet(path="x.parquet"), tmp_path / "x.parquet")


REPEATED = [
    '{"a": 1, "a": 1}',
    '{"a": {"b": 1, "b": 2}}',
    '{"a": [{"b": null, "c": 0, "b": null}]}',
    '{"": 1, "": 2}',
    '{"a": 1, "\\u0061": 2}',
]


@pytest.mark.parametrize("content", REPEATED)
@pytest.mark.parametrize(("member", "around"), [(Jsonl, "{}"), (Json, "[{}]")])
def test_keys_that_stand_twice_are_refused_at_any_depth(tmp_path, content, member, around):
    (tmp_path / "x").write_text(around.replace("{}", content), "utf-8")
    with pytest.raises(UserError, match="stands twice in one object") as caught:
        read(member(path="x"), tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value.problems[0].where)


PLAIN_TEXTS = {Jsonl: '{"a": "x"}\n', Json: '[{"a": "x"}]', Csv: "a\nx\n", Text: "x\n"}


@pytest.mark.parametrize("member", PLAIN_TEXTS)
@pytest.mark.parametrize(
    ("encode", "said"),
    [
        (lambda text: text.encode("utf-16"), "UTF-16, not UTF-8"),
        (lambda text: text.encode("utf-16-be"), "begins with a zero byte"),
        (lambda text: text.encode("utf-16-le"), "begins with a zero byte"),
        (lambda text: text.encode("utf-32"), "UTF-32, not UTF-8"),
        (lambda text: gzip.compress(text.encode()), "is compressed by gzip"),
        (lambda text: bz2.compress(text.encode()), "is compressed by bzip2"),
        (lambda text: lzma.compress(text.encode()), "is compressed by xz"),
        (lambda text: zstandard.compress(text.encode()), "is compressed by zstd"),
    ],
)
def test_a_file_that_is_no_utf8_text_says_what_it_is(tmp_path, member, encode, said):
    (tmp_path / "x").write_bytes(encode(PLAIN_TEXTS[member]))
    with pytest.raises(UserError, match=said) as caught:
        read(member(path="x"), tmp_path / "x")
    assert caught.value.problems[0].where.file == str(tmp_path / "x") and caught.value.problems[0].hint


@pytest.mark.parametrize("member", PLAIN_TEXTS)
@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
def test_a_byte_order_mark_at_the_beginning_is_no_part_of_the_text_in_compressed_files_too(tmp_path, member, end):
    raw = ("\ufeff" + PLAIN_TEXTS[member]).encode()
    (tmp_path / f"x{end}").write_bytes({".gz": gzip.compress, ".zst": zstandard.compress}.get(end, bytes)(raw))
    ((_, row),) = read(member(path=f"x{end}"), tmp_path / f"x{end}")
    assert row in ({"a": "x"}, {"text": "x\n", "file": "x"})


@pytest.mark.parametrize(
    ("source", "text", "line"),
    [
        (Jsonl(path="x"), '{"a": 1}\n\ufeff{"a": 2}\n', 2),
        (Jsonl(path="x"), '{"a": 1}\ufeff{"a": 2}\n', 1),
        (Jsonl(path="x"), '\ufeff\ufeff{"a": 1}\n', 1),
        (Csv(path="x"), "a,b\n1,2\n\ufeffa,b\n3,4\n", 3),
        (Text(path="x", split="line"), "one\ntwo\n\ufeffthree\n", 3),
        (Text(path="x"), "one\n\ufefftwo\n", 2),
        (Text(path="x", split="blank_line"), "one\n\n\ufefftwo\n", 3),
    ],
)
def test_a_byte_order_mark_in_the_midst_is_told_of_at_its_line(tmp_path, source, text, line):
    (tmp_path / "x").write_text(text, "utf-8")
    with pytest.raises(UserError, match="byte order mark") as caught:
        read(source, tmp_path / "x")
    (problem,) = caught.value.problems
    assert (problem.where.file, problem.where.line) == (str(tmp_path / "x"), line) and "sed -i" in problem.hint


def test_a_mark_inside_of_a_value_is_a_character_like_others(tmp_path):
    (tmp_path / "x").write_text('{"a": "b\ufeffc"}\n', "utf-8")
    assert [row for _, row in read(Jsonl(path="x"), tmp_path / "x")] == [{"a": "b\ufeffc"}]


@pytest.mark.parametrize(
    ("member", "path", "way"),
    [
        (Jsonl, "data/r.jsonl.bz2", "bunzip2 data/r.jsonl.bz2"),
        (Json, "data/r.json.xz", "unxz"),
        (Csv, "data/r.csv.zip", "unzip"),
        (Csv, "data/*.csv.BZ2", "bunzip2"),
        (Text, ["a.txt", "b.txt.lz4"], "unlz4"),
        (Jsonl, "data/all.tar.gz", "tar -xf"),
        (Parquet, "data/r.parquet.gz", "gunzip data/r.parquet.gz; Parquet files are compressed internally"),
        (Parquet, "data/r.parquet.zst", "unzstd"),
    ],
)
def test_files_that_cannot_be_uncompressed_are_refused_with_the_spec(member, path, way):
    with pytest.raises(ValidationError) as caught:
        member.model_validate(with_tuples({"path": path}))
    assert "is a compressed file" in str(caught.value) and way in str(caught.value)


def test_files_of_a_pattern_that_cannot_be_uncompressed_are_refused_by_name(tmp_path):
    for name in ("a.csv", "b.csv.bz2"):
        (tmp_path / name).write_text("a\nx\n")
    with pytest.raises(UserError, match=r"b\.csv\.bz2 is a compressed file, which kind 'csv' does not support"):
        read(Csv(path="data/*"), tmp_path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_tables_end_their_lines_as_any_system_does(tmp_path, ends):
    (tmp_path / "x").write_bytes(ends.join(["a,b", '1,"two', 'lines"', "3,4", ""]).encode())
    assert [row for _, row in read(Csv(path="x"), tmp_path / "x")] == [{"a": "1", "b": f"two{ends}lines"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize("text", ["PAR1,PAR2\n1,2\n", "BZh,b\n1,2\n", "PK,b\n1,2\n"])
def test_text_that_begins_as_names_of_formats_do_is_text(tmp_path, text):
    (tmp_path / "x.br").write_text(text, "utf-8")
    assert len(read(Csv(path="x.br"), tmp_path / "x.br")) == 1 and len(read(Text(path="x.br"), tmp_path / "x.br")) == 1


def test_a_byte_order_mark_in_the_midst_of_a_document(tmp_path):
    (tmp_path / "x").write_text('[{"a": 1}]\n\ufeff[{"a": 2}]\n', "utf-8")
    with pytest.raises(UserError, match="byte order mark") as caught:
        read(Json(path="x"), tmp_path / "x")
    assert caught.value.problems[0].where.line == 2
