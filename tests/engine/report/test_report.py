"""The report of fabricated steps: every section, escaping, missing pieces, the same bytes twice."""

import json
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine import __version__
from engine.artifacts.history import State, compare
from engine.core.errors import UserError
from engine.core.markdown import inline
from engine.dvc.run_records import RunRecord
from engine.identity.provenance import Provenance
from engine.report import pictures
from engine.report.blocks import AnswerRows, Picture, Remark, Section, Table, TokenRow
from engine.report.collect import Node, ReportData, Trained, _pieces
from engine.report.page import _bold, _fenced, html, markdown, write
from engine.report.sections import _differing, sections
from engine.results.lengths import Warned
from engine.results.table import Result, score_table
from stages.tokens.files import TokenWriter
from tests.support.browser import CHROMIUM, browser
from tests.support.memory_store import MemoryStore

ROOT = Path(__file__).parents[3]
TITLES = (
    "Summary|Sample predictions|Metrics|Loss curves|Data funnel|Mixture|Tokens and labels|Cost|Reproduce|Experiments|Step graph|Steps"
).split("|")
MEMORY = {"memory_before_bytes": 2**20, "training_memory_bytes": 3 * 2**20}
EVIL = "<script>alert('1')</script> | `x` $a_1$"


def proof(step: str) -> Provenance:
    digest = "sha256:" + step.encode().hex().ljust(64, "0")[:64]
    return Provenance(step, step.split("-")[0], digest, {}, digest, {}, {})


def ran(step: str, **measured: float) -> RunRecord:
    return RunRecord(step, "0" * 32, machine={"cores": 2, "platform": "somewhere"}, measured=measured, git_commit="c0ffee")


def node(name: str, *producers: str, action: str = "keep", **values: object) -> Node:
    return Node(name, name.split("-")[0], action, producers, **{"provenance": proof(name), "ran": ran(name, seconds=1.5)} | values)


def counted(rows: int) -> dict[str, object]:
    return {
        "rows_in": rows,
        "rows_out": rows,
        "left_out": {},
        "truncated": 1,
        "tokens": 10 * rows,
        "supervised_tokens": 4 * rows,
        "longest": 12,
    }


@pytest.fixture
def matter(tmp_path: Path) -> ReportData:
    """One experiment with all steps built, whose answers are hostile."""
    tokenizer(tmp_path / "artifacts/initialize-toy")
    folder = tmp_path / "artifacts/tokenize-a-toy"
    folder.mkdir()
    with TokenWriter(folder / "train.safetensors") as writer:
        writer.write(np.array([0, 1, 2], np.int32), np.array([0, 1, 1], np.uint8))
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/train-one.csv").write_text("step,loss,learning_rate,validation_loss\n1,2.5,0.1,\n2,1.5,0.1,1.75\n")
    (tmp_path / "plots/evaluate-one.csv").write_text(
        "score,model,task,metric,value,low,high,rows\n"
        "a exact_match,one,a,exact_match,0.75,0.5,1.0,4\nbase: a,base,a,exact_match,0.25,0.0,0.5,4\n"
    )
    row = {"id": "r1", "prompt": "Say\n```", "reference": "yes", "answer": EVIL}
    for name, answer in (("one", EVIL), ("base", "no")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {"answer": answer}) + "\n")
    train = replace(
        node(
            "train-one",
            "mix-one",
            "tokenize-a-toy",
            metrics={"steps": 2, "parameters": 8608, "validation_loss": {"a": 1.75}},
            plots="plots/train-one.csv",
        ),
        ran=ran("train-one", seconds=9.0, tokens_per_second=83.5, peak_memory_bytes=50 * 2**20, **MEMORY),
        estimated_bytes=2.0 * 2**20,
    )
    nodes = [
        node("initialize-toy"),
        node("generate-a", metrics={"rows_in": 50, "rows_out": 40, "left_out": {"too long": 10}}),
        node("split-a", "generate-a", metrics={"rows_in": 40, "train": 27, "validation": 3, "test": 8, "left_out": {EVIL: 2}}),
        node(
            "tokenize-a-toy",
            "split-a",
            "initialize-toy",
            inputs={"tokenizer/tokenizer.json": "artifacts/initialize-toy/tokenizer.json"},
            metrics={"train": counted(27), "validation": counted(3)},
        ),
        node("mix-one", "tokenize-a-toy", metrics={"rows": 8, "tasks": {"a": {"rows": 8, "share_of_rows": 1.0, "passes": 0.3}}}),
        train,
        node("predict-one", "train-one", action="run", metrics={"a": {"rows_in": 8, "rows_out": 4, "left_out": {"not asked": 4}}}),
        node(
            "evaluate-one",
            "predict-one",
            action="maybe",
            inputs={"predictions/a": "one.jsonl", "compare/base/a": "base.jsonl"},
            metrics={"a": {"exact_match": 0.75}},
            plots="plots/evaluate-one.csv",
        ),
    ]
    comparison = {"task": "a", "metric": "exact_match", "other": "base", "value": 0.75, "other_value": 0.25, "difference": 0.5}
    comparison |= {"low": 0.25, "high": 0.75, "p": 0.031, "p_corrected": 0.031, "real": True, "trained_on": True}
    around = {"a": {"exact_match": {"value": 0.75, "low": 0.5, "high": 1.0}}}
    result = Result("one", ("a",), "lora", "sha256:" + "ab" * 32, {"a": {"exact_match": 0.75, "rows": 4}}, around, (comparison,), True)
    return ReportData(
        tmp_path, {one.name: one for one in nodes}, [Trained("one", "specs/one two.toml", ("a",), "lora", "train-one")], [result]
    )


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    folder.mkdir(parents=True)
    Tokenizer(WordLevel({"Say": 0, "<yes>": 1, "end": 2}, unk_token="end")).save(str(folder / "tokenizer.json"))


def cells(matter: ReportData, title: str, table: int = 0) -> list[dict[str, str]]:
    (section,) = [one for one in sections(matter) if one.title == title]
    found = [block for block in section.blocks if isinstance(block, Table)][table]
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def remarks(matter: ReportData, title: str) -> str:
    (section,) = [one for one in sections(matter) if one.title == title]
    return "\n".join(block.text for block in section.blocks if isinstance(block, Remark))


def test_every_section_is_in_both_pages(matter: ReportData):
    found = sections(matter)
    assert [section.title for section in found] == TITLES
    page, twin = html("Report", found), markdown("Report", found)
    assert re.findall(r"^## (.*)$", twin, re.MULTILINE) == TITLES
    assert [title.replace("&#39;", "'") for title in re.findall(r"<h2 id=.*>(.*)</h2>", page)] == TITLES


def test_the_numbers_of_the_road(matter: ReportData):
    (funnel,) = cells(matter, "Data funnel")
    assert (
        funnel["rows in"] == "50"
        and funnel["rows generated"] == "40"
        and (funnel["train"], funnel["validation"], funnel["test"]) == ("27", "3", "8")
    )
    assert funnel["left out"] == f"10 too long, 2 {EVIL}"
    assert cells(matter, "Data funnel", 1)[0]["left out"] == "4 not asked"
    assert cells(matter, "Tokens and labels")[0]["share"] == "40.0%"
    assert cells(matter, "Metrics")[0]["a"] == "0.75 [0.50, 1.00]"
    assert cells(matter, "Metrics", 1)[0]["significant"] == "yes"
    cost = {row["step"]: row for row in cells(matter, "Cost")}["train-one"]
    assert (cost["peak memory"], cost["training memory"], cost["estimate"], cost["training / estimate"]) == (
        "50.00 MiB",
        "3.00 MiB",
        "2.00 MiB",
        "1.50",
    )
    assert cells(matter, "Steps")[6]["plan"] == "run" and "predict-one, evaluate-one" in remarks(matter, "Summary")


def test_the_lengths_of_rows_and_what_became_of_them_are_drawn(matter: ReportData):
    drawn = {block.name: block for section in sections(matter) for block in section.blocks if isinstance(block, Picture)}
    assert "Lengths" in drawn["lengths"].caption
    for part in ("train", "validation", "test", "left out"):
        assert f">{part}<" in drawn["funnel"].svg


def test_supervised_tokens_are_marked(matter: ReportData):
    (section,) = [one for one in sections(matter) if one.title == "Tokens and labels"]
    (row,) = [block for block in section.blocks if isinstance(block, TokenRow)]
    assert row.pieces == [("Say", False), (" <yes> end", True)]
    page = html("Report", [section])
    assert "<span>Say</span><mark> &lt;yes&gt; end</mark>" in page
    assert "Say<b> &lt;yes&gt; end</b>" in markdown("Report", [section])


def test_the_heat_map_has_experiments_and_bases(matter: ReportData):
    page = html("Report", sections(matter))
    svg = page[page.index('role="img" aria-label="exact_match of models') :].split("</svg>")[0]
    assert "base of one" in svg and "0.75" in svg and "0.25" in svg


def test_the_heat_map_has_one_row_for_each_base_whatever_experiments_are_called(matter: ReportData):
    """Two experiments share a base, a third has another one, and an experiment is called `base` and is the base of a fourth."""

    def predict(name: str, model: str) -> Node:
        return node(f"predict-{name}", inputs={"model": f"artifacts/{model}", "test/a": "artifacts/split-a/test.jsonl"})

    def evaluate(name: str, base: str | None, value: float) -> Node:
        plot = f"plots/evaluate-{name}.csv"
        (matter.root / plot).write_text(
            f"score,model,task,metric,value,low,high,rows\na exact_match,{name},a,exact_match,0.9,,,4\n"
            + (f"base: a,base,a,exact_match,{value},,,4\n" if base else "")
        )
        inputs = {"predictions/a": f"artifacts/predict-{name}/predictions-a.jsonl"}
        inputs |= {"compare/base/a": f"artifacts/predict-{base}/predictions-a.jsonl"} if base else {}
        return node(f"evaluate-{name}", inputs=inputs, plots=plot)

    made = [predict(*pair) for pair in (("one", "t1"), ("two", "t2"), ("three", "t3"), ("base", "t4"), ("four", "t5"))]
    made += [predict("small-a", "small"), predict("large-a", "large")]
    made += [evaluate("one", "small-a", 0.11), evaluate("two", "small-a", 0.11), evaluate("three", "large-a", 0.22)]
    made += [evaluate("base", None, 0), evaluate("four", "base", 0.33)]
    results = [replace(matter.results[0], experiment=name, comparisons=()) for name in ("one", "two", "three", "four")]
    shown = replace(matter, nodes={one.name: one for one in made}, results=results)
    (summary, *_) = sections(shown)
    (picture,) = [block for block in summary.blocks if isinstance(block, Picture)]
    rows = re.findall(r">((?:base|one|two|three|four|0\.)[^<]*)</text>", picture.svg)
    assert [row for row in rows if row[0] != "0"] == ["one", "two", "three", "four", "base of one, two", "base of three", "base"]
    assert rows.count("0.11") == rows.count("0.22") == rows.count("0.33") == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")
def test_the_heat_map_of_three_tasks_fits_a_phone_and_keeps_its_size_elsewhere(tmp_path: Path):
    rows = {name: {"extract": 1.0, "headline": 0.5, "topic": 0.25} for name in ("base", "multitask")}
    drawn = pictures.heat_map("heat", rows)
    wide = pictures.heat_map("wide", {name: {f"task-{n}": 0.5 for n in range(12)} for name in rows})
    page = tmp_path / "page.html"
    page.write_text(
        html("Report", [Section("summary", "Summary", [Picture("heat", "Heat", drawn), Picture("wide", "Wide", wide)])]), "utf-8"
    )
    sizes = "[...document.querySelectorAll('.box')].map(one => [one.scrollWidth - one.clientWidth, one.firstElementChild.clientWidth])"
    with browser(tmp_path / "profile") as reader:
        reader.open(page, width=1280)
        whole = [width for _, width in reader.evaluate(sizes)]
        reader.open(page, width=360)
        (hidden, _), (scrolled, width) = reader.evaluate(sizes)
    assert hidden == 0 and whole[0] > 328, "the one chart of the summary is seen at once"
    assert scrolled > 0 and width == pytest.approx(0.68 * whole[1], rel=0.02), "words of a wide one stay legible"


def test_scores_of_validation_rows_say_so_beside_those_of_test_rows(matter: ReportData):
    (tested,) = matter.results
    table = score_table([tested, replace(tested, experiment="two", split="validation")], "exact_match")
    assert [dict(zip(table[0], row, strict=True))["split"] for row in table[1]] == ["test", "validation"]
    assert "split" not in score_table([tested], "exact_match")[0]


def test_words_that_differ_from_the_reference_are_marked(matter: ReportData):
    (matter.root / "one.jsonl").write_text(
        json.dumps({"id": "r1", "prompt": "Say", "reference": "yes, all of it", "answer": "yes, none of it"})
    )
    page, twin = html("Report", sections(matter)), markdown("Report", sections(matter))
    assert 'yes, <mark class="differs">none</mark> of it</pre>' in page and "yes, <b>none</b> of it" in twin


def test_what_a_terminal_would_obey_is_shown(matter: ReportData):
    (matter.root / "one.jsonl").write_text(json.dumps({"id": "r1", "prompt": "\x1b[2J", "reference": "a", "answer": "\x1b]0;b\x07"}))
    for text in (html("Report", sections(matter)), markdown("Report", sections(matter))):
        assert "\x1b" not in text and "\x07" not in text and r"x1b[2J" in text


def test_of_many_trainings_one_picture_shows_all(matter: ReportData):
    more = {f"train-{n}": replace(matter.nodes["train-one"], name=f"train-{n}") for n in range(20)}
    (section,) = [one for one in sections(replace(matter, nodes={**matter.nodes, **more})) if one.title == "Loss curves"]
    assert [block.name for block in section.blocks if isinstance(block, Picture)] == ["loss-all"]
    (section,) = [
        one for one in sections(replace(matter, nodes={**matter.nodes, "train-two": more["train-0"]})) if one.title == "Loss curves"
    ]
    assert len(section.blocks) == 3


def test_a_reader_can_search_more_rows_than_a_page_shows(matter: ReportData):
    rows = [{"id": f"r{n}", "prompt": "Say", "reference": "yes, all", "answer": "yes, all" if n % 2 else "yes,"} for n in range(60)]
    for name in ("one", "base"):
        (matter.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, twin = html("Report", sections(matter)), markdown("Report", sections(matter))
    before, folded, _ = re.split(r'<details class="more">|</details>', page, maxsplit=2)
    assert (before.count("<figure class="), folded.count("<figure class="), twin.count("yes, all |")) == (3, 47, 3 + 2)
    assert page.count('data-differs="0 1 "') == page.count('data-differs=""') == 25, "what an answer lacks differs too"


@pytest.mark.filterwarnings("error")
def test_the_page_of_a_hundred_experiments_and_a_hundred_thousand_rows_is_below_ten_megabytes(
    matter: ReportData, capfd: pytest.CaptureFixture[str]
):
    names, nodes = [f"x{n}-of-a-long-name" for n in range(100)], {**matter.nodes}
    del nodes["evaluate-one"]
    for place, name in enumerate(names):
        # Only the rows that a page has are read.
        rows = [
            {"id": n, "prompt": "Say", "reference": "yes", "answer": f"{name} {n} & so on " * 30 if n < 50 else ""} for n in range(1000)
        ]
        (matter.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        nodes[f"train-{name}"] = replace(matter.nodes["train-one"], name=f"train-{name}")
        nodes[f"evaluate-{name}"] = replace(
            matter.nodes["evaluate-one"], name=f"evaluate-{name}", inputs={"predictions/a": f"{name}.jsonl"}
        )
        if place < 25:
            folder = matter.root / f"artifacts/tokenize-{name}-toy"
            folder.mkdir()
            with TokenWriter(folder / "train.safetensors") as writer:
                for _ in range(3):
                    writer.write(np.tile(np.array([0, 1], np.int32), 4096), np.tile(np.array([0, 1], np.uint8), 4096))
            nodes[folder.name] = replace(matter.nodes["tokenize-a-toy"], name=folder.name)
    found = sections(replace(matter, nodes=nodes))
    page = html("Report", found)
    assert 3 * 100 < page.count("<h3>x") < 50 * 100 and len(page.encode()) < 10 * 2**20
    assert len(markdown("Report", found).encode()) < 10 * 2**20 and capfd.readouterr().err == ""
    (tokens,) = [one for one in found if one.title == "Tokens and labels"]
    rows = [block for block in tokens.blocks if isinstance(block, TokenRow)]
    assert rows[-1].pieces[-1] == (" … (7,792 more tokens)", False) and tokens.blocks[-1].text.startswith("… 14 more token files")


@pytest.mark.filterwarnings("error")
def test_curves_have_room_beside_their_legend_however_many_there_are():
    for count in (2, 12, 13, 24, 25, 100):
        found = {f"experiment-{n}-of-a-name-that-is-quite-long": [(1.0, 2.0), (2.0, 0.1)] for n in range(count)}
        svg = pictures.curves("loss-all", found, log=True)
        plot = json.loads(unescape(re.search(r'data-plot="(.*?)"', svg)[1]))
        assert plot["right"] - plot["left"] > 200, count
        assert ("experiment-0-of" in re.sub('data-plot=".*?"', "", svg)) is (count <= pictures.MOST_NAMED)
        assert [one["label"] for one in plot["curves"]] == list(found), "which the page names at the pointer"


@pytest.mark.parametrize("learned", [[0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]])
def test_a_character_of_several_tokens_is_shown_whole(learned: list[int]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    ids = tokenizer.encode("a🙂b").ids
    pieces = _pieces(ids, [bool(one) for one in learned], tokenizer.decode)
    assert "".join(text for text, _ in pieces) == "a🙂b"
    assert ("🙂" in "".join(text for text, marked in pieces if marked)) is any(learned[1:5])
    assert _pieces(ids[:3], [True] * 3, tokenizer.decode) == [("a\ufffd", True)], "a row that ends amid a character"


def test_the_space_before_a_word_is_shown():
    """Decoders strip it from the first one."""
    from tokenizers import Tokenizer, decoders, models

    tokenizer = Tokenizer(models.WordLevel({"▁hello": 0, "▁big": 1, "▁world": 2}, unk_token="▁big"))
    tokenizer.decoder = decoders.Metaspace()
    assert _pieces([0, 1, 2], [False, False, True], tokenizer.decode) == [("hello big", False), (" world", True)]


def test_answers_that_repeat_themselves_are_compared_in_no_time():
    """As a model does that never ends; the words of both are cut where the page cuts them."""
    before = time.monotonic()
    assert _differing("yes " * 1000, "no " * 1000)[0][1]
    assert _differing("yes " * 1000, "yes " * 999) == [("yes " * 999, False)]
    assert _differing(f"{'yes ' * 500}but {'no ' * 500}", f"{'yes ' * 500}and {'no ' * 500}")[1] == ("and", True)
    assert time.monotonic() - before < 5


def test_a_reference_is_compared_as_far_as_it_is_shown(matter: ReportData):
    row = {"id": "r1", "prompt": "Say", "reference": f"{'yes ' * 100_000}end", "answer": f"{'yes ' * 100_000}and"}
    (matter.root / "one.jsonl").write_text(json.dumps(row))
    (section,) = [one for one in sections(matter) if one.title == "Sample predictions"]
    (rows,) = [block for block in section.blocks if isinstance(block, AnswerRows)]
    assert len(rows.rows[0].reference) < 5000 and all(len(text) < 5000 for _, pieces in rows.rows[0].answers for text, _ in pieces)


def test_what_changed_since_the_last_commit(matter: ReportData):
    def state(title: str, rank: int, score: float, *more: str) -> State:
        steps = {"train-one": {"method": {"r": rank}}, "evaluate-one": {}} | {name: {} for name in more}
        return State(title, steps, {}, {"evaluate-one": {"a": {"exact_match": score}}, "train-one": {"seconds": rank}})

    before = state("c0ffee" * 6 + "c0ff", 8, 0.5, "gone")
    told = replace(matter, changes=compare(before, state("now", 4, 0.75), MemoryStore()))
    remark, scores, recipes, steps = next(one.blocks for one in sections(told) if one.title == "Since the last commit")
    assert scores.rows == [["one", "a", "exact_match", "0.5", "0.75", "+0.25"]] and steps.rows == [["gone", "removed"]]
    assert recipes.rows == [["train-one", "method.r", "8", "4"]] and "c0ffeec0ffee, in 1 values of metrics" in remark.text
    unbuilt = replace(before, missing=("dvc.lock",))
    for old, said in ((before, "No metric, adapter, recipe or step differs"), (unbuilt, "Nothing is recorded as built")):
        assert said in remarks(replace(matter, changes=compare(old, before, MemoryStore())), "Since the last commit")


def test_the_page_has_what_assistive_technology_needs(matter: ReportData):
    page = html("Report", sections(matter))
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    assert '<html lang="en">' in page and "<th>" not in page and page.count('<th scope="col"') > 20
    assert len(re.findall(r"<label>[^<]+ <(?:input|select)", page)) == len(re.findall(r"<(?:input|select)", page)) == 3
    for tag in re.findall(r"<div [^>]*tabindex[^>]*>|<pre tabindex[^>]*>|<form[^>]*>", page):
        assert "role=" in tag and "aria-label=" in tag, tag
    captions = [section.title for section in sections(matter) if section.folded]
    assert page.count("<details><summary>") == len(captions)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours_have_the_contrast_of_wcag_aa(scheme: str):
    """4.5 for text, 3 for lines: https://www.w3.org/TR/WCAG22/#contrast-minimum"""
    style = (ROOT / "engine/report/style.css").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6});", line)) for line in style.splitlines() if ":root {" in line]
    found = dict(zip(("light", "dark", "print"), themes, strict=True))
    colour = found["light"] | found[scheme]
    for ink, ground in (("ink", "ground"), ("dim", "ground"), ("link", "ground"), ("ink", "soft"), ("ink", "learned")):
        assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    drawn = [*pictures.COLOURS.values(), *pictures.LINES] if scheme != "print" else []
    for line in (*drawn, colour["dim"], colour["link"]):
        assert contrast(line, colour["ground"]) >= 3, line
    assert contrast(colour["differs"], colour["soft"]) >= 3 and contrast(colour["learned-line"], colour["learned"]) >= 3


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_values_are_escaped(matter: ReportData):
    found = sections(replace(matter, experiments=[replace(matter.experiments[0], name=EVIL)]))
    page, twin = html(EVIL, found), markdown(EVIL, found)
    assert page.count("<script") == 1 and "&lt;script&gt;" in page, "only the page's own script"
    assert "<script" not in twin and not re.search(r"(?<!\\)\| `x", twin)
    assert "````text\nSay\n```\n````" in twin


def test_a_page_stands_alone(matter: ReportData):
    page = html("Report", sections(matter))
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://|<script\s|<link rel=.stylesheet|@import", without_names)
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', page)) <= set(names)


def test_the_same_values_give_the_same_bytes(matter: ReportData, tmp_path: Path):
    first, second = (write(tmp_path / name, "Report", sections(matter)) for name in ("one", "two"))
    assert [path.name for path in first] == [
        "report.html",
        "report.md",
        "heat-map.svg",
        "loss-train-one.svg",
        "funnel.svg",
        "lengths.svg",
        "graph.svg",
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    for path in first[2:]:
        ElementTree.fromstring(path.read_text())
        assert f"pictures/{path.name}" in first[1].read_text()


def test_pictures_that_are_no_longer_there_are_removed(matter: ReportData, tmp_path: Path):
    write(tmp_path / "out", "Report", sections(matter))
    write(tmp_path / "out", "Report", sections(matter)[:1])
    assert [path.name for path in (tmp_path / "out/pictures").iterdir()] == ["heat-map.svg"]


def test_files_of_others_stay_where_a_report_is_written(matter: ReportData, tmp_path: Path):
    """Also a picture of others that the earlier page names, by whatever accident."""
    pictures = tmp_path / "docs/pictures"
    pictures.mkdir(parents=True)
    (pictures / "logo.svg").write_text("<svg/>")
    (tmp_path / "docs/report.md").write_text("# Ours\n\n![the logo](pictures/logo.svg)\n")
    for shown in (sections(matter), sections(matter)[:1]):
        write(tmp_path / "docs", "Report", shown)
    assert sorted(path.name for path in pictures.iterdir()) == ["heat-map.svg", "logo.svg"]


def test_what_is_missing_is_said(tmp_path: Path, matter: ReportData):
    """A workspace in which nothing has run yet: every section is there, and says which command makes it."""
    nodes = {name: replace(one, metrics={}, provenance=None, ran=None, action="run") for name, one in matter.nodes.items()}
    empty = ReportData(tmp_path / "empty", nodes, matter.experiments)
    html("Report", sections(empty)), markdown("Report", sections(empty))
    for title in ("Mixture", "Tokens and labels", "Loss curves", "Metrics", "Sample predictions", "Cost"):
        assert "Run: engine build" in remarks(empty, title), title
    assert cells(empty, "Experiments")[0]["state"] == "not built"
    assert "No run record names a commit" in remarks(empty, "Reproduce")


def test_no_steps_at_all(tmp_path: Path):
    found = sections(ReportData(tmp_path, {}, []))
    assert [section.title for section in found] == TITLES and all(section.blocks for section in found)
    assert "There are no steps." in html("Report", found)


def reproduced(matter: ReportData) -> str:
    return markdown("Report", [one for one in sections(matter) if one.title == "Reproduce"])


def test_the_commands_build_the_specs_at_their_commit(matter: ReportData):
    twin = reproduced(matter)
    lines = ["git checkout c0ffee", "pip install -r requirements.lock", "engine check", "engine build 'specs/one two.toml'"]
    lines.append("engine verify train-one")
    assert "```sh\n" + "\n".join(lines) + "\n```" in twin


def test_a_workspace_of_an_installed_program_is_set_up_by_pip_with_the_program_itself(matter: ReportData):
    (matter.root / "adapterbuild.lock").touch()
    assert f"git checkout c0ffee\npip install adapterbuild=={__version__} -r adapterbuild.lock\nengine check" in reproduced(matter)


def test_a_workspace_that_locks_device_libraries_is_set_up_by_make(matter: ReportData):
    (matter.root / "requirements-devices.lock").touch()
    assert "git checkout c0ffee\nmake setup\nengine check" in reproduced(matter)


def test_a_large_graph_is_drawn_by_kind():
    nodes = {f"split-{n}": node(f"split-{n}") for n in range(90)} | {"mix-x": node("mix-x", "split-0", "split-89", action="run")}
    svg = pictures.graph(nodes)
    assert "90 × split" in svg and "1 × mix" in svg and "split-7" not in svg


def test_only_columns_of_numbers_are_set_to_the_right():
    table = Table("Steps", ("step", "content address", "rows"), [["a", "166158932347", "1,024"], ["b", "d3435fcdb208", "–"]])
    page = html("Report", [Section("steps", "Steps", [table])])
    assert "<td>166158932347</td>" in page and '<td class="number">1,024</td>' in page and '<th scope="col" class="number">rows' in page


def test_a_base_that_is_an_experiment_has_its_own_name_alone(matter: ReportData):
    """Two experiments read the answers of their bases in one file."""
    base = replace(matter.nodes["evaluate-one"], name="evaluate-base", inputs={"predictions/a": "base.jsonl"}, producers=())
    for nodes, names in (
        ({"evaluate-base": base, **matter.nodes}, ["base", "one"]),
        ({**matter.nodes, "evaluate-base": base}, ["one", "base"]),
        ({**matter.nodes, "evaluate-two": replace(matter.nodes["evaluate-one"], name="evaluate-two")}, ["one, two", "base of one, two"]),
    ):
        (section,) = [one for one in sections(replace(matter, nodes=nodes)) if one.title == "Sample predictions"]
        (rows,) = [block for block in section.blocks if isinstance(block, AnswerRows)]
        assert [model for model, _ in rows.rows[0].answers] == names


def test_markdown_cells():
    assert inline("a|b\n<i>") == r"a\|b ↵ &lt;i&gt;"
    assert _fenced("````") == "`````text\n````\n`````"
    assert _bold([("a", False), ("b", True), ("c", True)]) == "a<b>bc</b>"


def test_the_report_is_imported_without_what_draws_and_renders():
    modules = "engine.cli.app engine.cli.report engine.report.sections engine.report.page engine.report.pictures"
    code = f"import sys, {', '.join(modules.split())}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "jinja2", "markupsafe", "numpy", "tokenizers", "torch"} & set(loaded)


def test_only_pictures_names_matplotlib():
    found = [path.name for path in sorted((ROOT / "engine").rglob("*.py")) if re.search(r"(import|from) matplotlib", path.read_text())]
    assert found == ["pictures.py"]


def test_all_text_of_pictures_has_the_colour_of_the_page(matter: ReportData):
    """Text without a fill is black, which nobody sees on dark ground."""
    found = {"a": [(1.0, 2.0), (2.0, 1.0)], "b": [(1.0, 2.0)]}
    for svg in (pictures.graph(matter.nodes), pictures.curves("loss", found), pictures.heat_map("heat", {"m": {"a": 0.5}})):
        texts = list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))
        assert texts and all("fill: currentColor" in one.get("style", "") for one in texts)


def test_a_folder_that_cannot_be_one_is_refused(matter: ReportData, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match="cannot write to the folder"):
            write(folder, "Report", sections(matter)[:1])
    assert (tmp_path / "file").read_text() == "mine"


def test_values_of_benchmarks_are_in_the_comparison(matter: ReportData):
    taken = {"mmlu": {"acc": 0.25123, "acc_norm": 0.5, "rows": 40}, EVIL: {"acc": 1.0}}
    told = replace(matter, results=[replace(matter.results[0], benchmarks=taken, benchmarks_current=False)])
    (section,) = [one for one in sections(told) if one.title == "Metrics"]
    (found,) = [block for block in section.blocks if isinstance(block, Table) and "benchmark" in block.columns]
    assert found.rows == [
        ["one", "mmlu", "acc", "0.2512", "40", "stale"],
        ["one", "mmlu", "acc_norm", "0.5000", "40", "stale"],
        ["one", EVIL, "acc", "1.0000", "–", "stale"],
    ]
    assert html("Report", sections(told)).count("<script>") == 1
    assert not [block for one in sections(matter) for block in one.blocks if isinstance(block, Table) and "benchmark" in block.columns]


def test_preferences_have_their_curves_accuracies_and_what_they_cost_elsewhere(matter: ReportData):
    (matter.root / "plots/train-one.csv").write_text(
        "step,loss,learning_rate,grad_norm,accuracy,margin,chosen_reward,rejected_reward,chosen_logp,kl\n"
        "1,0.69,0.1,1.0,0.5,0.0,0.0,0.0,-5.0,0.0\n2,0.5,0.1,1.0,0.75,0.2,0.1,-0.1,-5.5,0.01\n"
    )
    measured = {"accuracy": 0.875, "margin": 0.25, "chosen_tokens": 4.25, "rejected_tokens": 11.5, "chosen_log_ratio": -0.5}
    (result,) = matter.results
    known = {"difference": -0.2, "low": -0.3, "high": -0.1, "p": 0.01, "p_corrected": 0.01, "real": True, "value": 0.5, "other_value": 0.7}
    others = (
        {"task": "b", "metric": "exact_match", "other": "sft", "trained_on": False, **known},
        {"task": "a", "metric": "length", "other": "sft", "trained_on": True, **known},
    )
    learned = replace(result, objective="dpo", held_out={"a": measured}, comparisons=(*result.comparisons, *others))
    found = replace(matter, results=[learned])
    (row,) = cells(found, "Preferences and teachers")
    assert (row["objective"], row["accuracy"], row["margin"], row["divergence"]) == ("dpo", "0.875", "0.250", "–")
    assert (row["tokens of chosen"], row["tokens of rejected"]) == ("4.2", "11.5")
    assert (row["log-ratio of chosen"], row["log-ratio of rejected"]) == ("-0.500", "–")
    assert "Warning" not in remarks(found, "Preferences and teachers")
    warned = replace(learned, warnings=(Warned("one: answers on a have become 3.1 times as long", "raise training.objective.beta"),))
    told = "Warning: one: answers on a have become 3.1 times as long. To try: raise training.objective.beta."
    assert told in remarks(replace(matter, results=[warned]), "Preferences and teachers")
    elsewhere = cells(found, "Preferences and teachers", 1)
    assert [(row["task"], row["metric"], row["trained on it"]) for row in elsewhere] == [("b", "exact_match", "no"), ("a", "length", "yes")]
    assert elsewhere[0]["difference"] == "-0.2" and elsewhere[0]["compared with"] == "sft"
    drawn = {block.name: block for section in sections(found) for block in section.blocks if isinstance(block, Picture)}
    assert {"rewards-train-one", "shares-train-one", "divergence-train-one"} <= drawn.keys()
    assert "chosen reward" in drawn["rewards-train-one"].caption and "chosen reward" in drawn["rewards-train-one"].svg
    assert "Preferences and teachers" not in [section.title for section in sections(matter)]
    taught = replace(result, objective="distill", held_out={"a": {"kl": 0.5, "cross_entropy": 1.25, "agreement": 0.75}})
    (row,) = cells(replace(matter, results=[taught]), "Preferences and teachers")
    assert (row["divergence"], row["cross entropy"], row["agreement"]) == ("0.500", "1.250", "0.750")
