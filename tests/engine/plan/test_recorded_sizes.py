"""What plans and reports say of built steps: for every kind of step and every sort of metrics that its body writes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.plan.recorded_sizes import recorded_sizes
from engine.report.collect import Node, ReportData, Trained
from engine.report.page import html
from engine.report.sections import sections
from stages.kinds import KINDS
from stages.reference.body import _metrics, _mismatched_metrics
from stages.tokens.files import Tokens, TokenWriter

SPLIT = {"rows_in": 4, "rows_out": 4, "left_out": {}, "truncated": 0, "tokens": 30, "supervised_tokens": 9, "longest": 8}
TRAINED = {"steps": 2, "rows": 8, "tokens": 99, "supervised_tokens": 30, "parameters": 98_304, "trainable_parameters": 1_024}
LOSSES = {"train_loss": 1.5, "validation_loss": {"a": 1.75}}
MEASURES = {"accuracy": 0.75, "margin": 0.1, "chosen_reward": 0.0, "rejected_reward": -0.1, "chosen_tokens": 5.0, "rejected_tokens": 9.0}
RECORDED: dict[str, list[tuple[dict[str, Any], tuple[str, ...]]]] = {
    "generate": [({"rows_in": 5, "rows_out": 4, "left_out": {"too long": 1}}, ("4 rows",))],
    "split": [({"rows_in": 4, "train": 2, "validation": 1, "test": 1, "left_out": {}}, ("2 train", "1 validation", "1 test"))],
    "fetch": [({"files": 3, "bytes": 4_096}, ())],
    "dequantise": [({"files": 3, "parameters": 7}, ("7 parameters",))],
    "initialize": [({"parameters": 681_216, "vocab_size": 700}, ("681,216 parameters",))],
    "rescale": [({}, ())],
    "vocabulary": [({"tokens": 3}, ())],
    "tokenize": [
        ({"train": SPLIT, "validation": SPLIT}, ("60 tokens",)),
        ({"train": SPLIT | {"pairs": 2}, "validation": SPLIT | {"pairs": 2}}, ("60 tokens",)),
        ({"train": SPLIT | {"desirable": 3, "undesirable": 1}, "validation": SPLIT}, ("60 tokens",)),
    ],
    "logits": [({"train": {"rows": 4, "bytes": 8_000_000}, "validation": {"rows": 1, "bytes": 2_000_000}}, ("0.01 GB",))],
    "mix": [
        ({"rows": 8, "tasks": {"a": {"rows": 8, "tokens": 9, "supervised_tokens": 3}}}, ("8 rows",)),
        ({"rows": 8, "bins": 2, "packing_efficiency": 0.9, "tasks": {"a": {"rows": 8}}}, ("8 rows", "2 bins")),
    ],
    "train": [
        (TRAINED | LOSSES, ("2 steps", "1.02 k trainable of 98.3 k")),
        (TRAINED | LOSSES | {"pairs": 4, "train": MEASURES, "validation": {"a": MEASURES}}, ("2 steps", "1.02 k trainable of 98.3 k")),
        (TRAINED | LOSSES | {"desirable": 4, "train": MEASURES | {"kl": 0.0}, "validation": {}}, ("2 steps", "1.02 k trainable of 98.3 k")),
        (TRAINED | LOSSES | {"train": {"kl": 0.1, "cross_entropy": 1.0, "agreement": 0.5}}, ("2 steps", "1.02 k trainable of 98.3 k")),
    ],
    "predict": [
        ({"a": {"rows_in": 4, "rows_out": 3, "left_out": {}}}, ("3 predictions",)),
        ({"one": {"a": {"rows_out": 3}}, "two": {"a": {"rows_out": 2}}}, ("5 predictions",)),
    ],
    "pair": [
        (
            {"prompts": 4, "pairs": 3, "left_out": {}, "margin": 1.0, "chosen_tokens": 3.0},
            ("3 pairs of 4 prompts",),
        ),
        ({"prompts": 4, "pairs": 0, "left_out": {"tied": 4}, "answers": {"read": 8}}, ("0 pairs of 4 prompts",)),
    ],
    "evaluate": [
        ({"a": {"rows": 4, "exact_match": 0.75, "versus": {"one": {"win_rate": 0.5}}}}, ("1 values",)),
        ({"a": {"rows": 0}}, ("0 values",)),
    ],
    "score": [({"asked": 4, "scores": {}}, ())],
    "benchmark": [({"arc": {"rows": 5, "acc": 0.25}}, ())],
    "merge": [({}, ()), ({"difference_to_quantised": 0.01}, ())],
    "export": [
        (
            {"parameters": 9, "bytes": 20_000_000, "asked_through": "llama.cpp", "rows": 8, "equal_answers": 1.0, "divergence": 0.0},
            ("0.02 GB", "100% of 8 answers equal"),
        )
    ],
}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """The metrics of reference steps as their body writes them: of pairs, of judged and of mismatched answers, and of no rows."""
    folder, marks = tmp_path_factory.mktemp("tokens"), np.array([1, 1, 0, 1], np.uint8)

    def tokens(name: str, rows: int = 4, **told: np.ndarray) -> Tokens:
        with TokenWriter(folder / name) as writer:
            if rows:
                writer.write_rows(np.arange(2 * rows, dtype=np.int32), np.ones(2 * rows, np.uint8), np.full(rows, 2), None, None, **told)
        return Tokens.open(folder / name)

    logps = np.array([-1, -2, -3, -4], np.float32)
    pairs = _metrics(tokens("pairs", chosen=np.array([1, 0, 1, 0], np.uint8)), logps)
    judged, nothing = _metrics(tokens("judged", desirable=marks), logps), _metrics(tokens("nothing", 0), logps[:0])
    mismatched, none = _mismatched_metrics(tokens("mismatched"), logps, 1, 4), _mismatched_metrics(tokens("none", 0), logps[:0], 0, 3)
    return [
        ({"train": pairs, "validation": pairs}, ("4 pairs",)),
        ({"train": pairs, "validation": nothing}, ("2 pairs",)),
        ({"train": judged, "validation": judged}, ("6 desirable", "2 undesirable")),
        ({"train": judged, "validation": nothing}, ("3 desirable", "1 undesirable")),
        ({"train": mismatched, "validation": none}, ("4 mismatched answers",)),
    ]


@pytest.fixture
def recorded(references) -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Kind, metrics and expected sizes."""
    return [(kind, *case) for kind, cases in (RECORDED | {"reference": references}).items() for case in cases]


def test_every_kind_of_step_has_metrics_here():
    assert {*RECORDED, "reference"} == set(KINDS)


def test_the_sizes_of_every_kind_of_step_are_told_from_all_metrics_that_it_writes(recorded):
    assert [(kind, recorded_sizes(KINDS[kind], metrics)) for kind, metrics, _ in recorded] == [(kind, sizes) for kind, _, sizes in recorded]


def test_metrics_that_lack_a_value_are_no_error_but_say_less(recorded):
    for kind, metrics, _ in recorded:
        for fewer in (*without_one(metrics), {}):
            assert all(isinstance(text, str) for text in recorded_sizes(KINDS[kind], fewer))


def without_one(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """METRICS without one of their values, at any depth."""
    for key, value in metrics.items():
        yield {name: other for name, other in metrics.items() if name != key}
        if isinstance(value, dict):
            yield from (dict(metrics) | {key: fewer} for fewer in without_one(value))


def test_the_report_shows_steps_with_any_of_these_metrics(recorded, tmp_path: Path):
    for kind, metrics, _ in recorded:
        for told in (metrics, *without_one(metrics)):
            data = ReportData(tmp_path, {f"{kind}-one": Node(f"{kind}-one", kind, "keep", metrics=told)}, [_experiment(kind)])
            assert "<html" in html("report", sections(data))


def _experiment(kind: str) -> Trained:
    return Trained("one", "specs/one.toml", ("a",), "full", f"{kind}-one")
