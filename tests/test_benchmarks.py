"""The benchmarks run: `--quick` on a real, fabricated graph that DVC itself calls up to date, and the JSON has its shape."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import median, table
from benchmarks.fabricate import SMALLEST, shape, write_specs
from engine.core.workspace import Workspace
from engine.plan.project import Project

ROOT = Path(__file__).parents[1]


def quick(benchmark: str, *more: str) -> dict[str, Any]:
    """What the quick version of BENCHMARK prints as its last line."""
    command = [sys.executable, f"benchmarks/{benchmark}.py", "--quick", "--json", *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
def test_quick_plan_speed_prints_its_rows_as_the_last_line():
    content = quick("plan_speed", "--repeats", "1")
    assert [row["steps"] for row in content["rows"]] == [SMALLEST, 30]
    for row in content["rows"]:
        assert set(row) == {"steps", "plan_s", "dvc_repro_dry_s", "dvc_status_s"}
        assert all(0 < value < 600 for value in row.values())
    assert content["start_up_s"].keys() == {"yardstick", "engine --help", "engine check", "engine plan"}
    assert content["machine"]


@pytest.mark.long
def test_quick_step_start_starts_a_step_in_both_ways():
    content = quick("step_start")
    process, fork = content["starts"]
    assert (process["way"], fork["way"]) == ("process", "fork")
    assert 0 < fork["processor_s"] < process["processor_s"] and content["server_bytes"] > fork["private_bytes"] > 0
    assert content["machine"]


@pytest.mark.long
def test_quick_build_overhead_runs_every_step_and_prints_its_rows():
    rows = quick("build_overhead", "--jobs", "2")["rows"]
    assert [(row["steps"], row["jobs"]) for row in rows] == [(SMALLEST, 2), (30, 2)]
    assert all(0 < row["overhead_s"] < row["wall_s"] and row["processes_s"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "../shared/data/gsm8k").exists(), reason="the public rows are not beside the repository")
@pytest.mark.long
def test_quick_tokenize_measures_all_three_on_the_same_rows():
    content = quick("tokenize")
    assert all(content[name] > 0 for name in ("floor", "trl", "ours"))
    assert content["trl_packing_efficiency"] <= content["packing_efficiency"] <= 1
    floor, ours = (content["parts"][name]["tokens"] for name in ("floor", "ours"))
    assert floor < ours <= floor + content["rows"], "one end token a row is all that is added"
    assert [row["rows"] for row in content["scaling"]] == [1_000]


def test_quick_storage_reads_the_same_rows_from_every_format():
    content = quick("storage")
    assert content["ways"].keys() == {"arrays", "arrow", "parquet"} and content["rows"] == 1_000


@pytest.mark.parametrize("steps", [SMALLEST, 14, 15, 16, 18, 30])
def test_specs_of_every_size_compile_to_that_many_steps(steps: int, tmp_path: Path):
    write_specs(tmp_path, steps)
    assert len(Project(Workspace.at(tmp_path)).graph) == steps


@pytest.mark.parametrize("steps", [0, 7, SMALLEST - 1, SMALLEST + 1])
def test_a_size_that_no_graph_has_is_refused(steps: int):
    with pytest.raises(ValueError, match="no graph of this form"):
        shape(steps)


def test_medians_and_tables():
    values = iter([3.0, 1.0, 2.0])
    assert median(lambda: next(values), 3) == 2.0
    assert table(["steps", "plan"], [["10", "0.3 s"]]).splitlines() == ["| steps | plan |", "|---:|---:|", "| 10 | 0.3 s |"]


@pytest.mark.real
@pytest.mark.long
def test_quick_real_trains_alike_in_every_loop_and_gives_the_answers_of_transformers():
    found = quick("real")
    assert [row["loop"] for row in found["trainings"]] == ["bare", "trl", "every logit", "ours", "trl", "every logit", "ours"]
    assert len({row["threads"] for row in found["trainings"]}) == 1, "every loop has the same threads"
    assert all(row["losses_apart"] < 1e-4 and row["speed"] > 0 for row in found["ratios"])
    assert [(row["model"], row["equal_answers"], row["rows"]) for row in found["answers"]] == [("base", 3, 3), ("adapter", 3, 3)]
    assert found["validation"]["losses_apart"] < 1e-4


@pytest.mark.long
def test_quick_training_prints_its_promises_as_the_last_line():
    found = quick("training")
    assert found["resume_identical"] is True and found["kills"] >= 1
    assert 0 < found["zero_max_relative_difference"] < 1e-4
    assert 0 < found["gradient_max_relative_difference"] < 1e-5
    assert {"overhead", "trl_ratio"} <= found.keys()


@pytest.mark.long
def test_quick_memory_has_both_measurements_beside_the_estimate():
    found = quick("memory")
    assert len(found["rows"]) == 3 and found["largest_tensor_error"] < 0.2
    assert all(row["measured_bytes"] > 0 and row["estimated_bytes"] > sum(row["parts"].values()) / 2 for row in found["rows"])


@pytest.mark.long
def test_quick_gpu_train_has_the_same_losses_in_all_loops():
    found = quick("gpu_train")
    assert {(row["model"], row["method"], row["loop"]) for row in found["rows"]} == {
        (model, method, loop)
        for model in ("tiny Llama", "tiny Falcon")
        for method in ("lora", "qlora")
        for loop in ("ours", "trl", "trainer")
    }
    assert found["left_out"] == [] and all(len(row["losses"]) == 4 for row in found["rows"])
    assert found["loss_max_relative_difference"] < 1e-4
    assert all(row["tokens_per_second"] > 0 and row["peak_memory_bytes"] >= 0 and row["estimated_bytes"] > 0 for row in found["rows"])


@pytest.mark.long
def test_quick_teacher_repeats_no_request_and_stays_below_the_limit():
    content = quick("teacher")
    assert {"requests", "repeated_requests", "identical", "kills", "efficiency", "peak_rate"} <= content.keys()
    assert content["repeated_requests"] == 0 and content["identical"] and content["kills"] > 0 and content["requests"] >= 150
    assert content["rows_streamed"] == 2_000 and content["streamed_base"] > 10 and content["streamed_above_base"] < 50


@pytest.mark.long
def test_quick_numerics_gives_one_portable_digest_each():
    found = quick("numerics")
    assert (
        [row["model"] for row in found["rows"]] == ["tiny Falcon", "Llama"]
        and found["machine"]
        and found["processor"]["offers"] is not None
    )
    for row in found["rows"]:
        assert row["portable_s"] > 0 and row["native_s"] > 0 and row["ratio"] == pytest.approx(row["portable_s"] / row["native_s"])
        assert len(row["portable_digests"]) == 1 and row["portable_parts"] == 2


def test_quick_machines_loses_no_record_runs_nothing_in_a_second_clone_and_moves_each_input_once():
    found = quick("machines")
    assert found["transfer"]["read_bytes"] < 1.1 * found["transfer"]["inputs_bytes"] < found["transfer"]["inputs_of_each_bytes"]
    assert all(0 < share < 1 for name, share in found["efficiency"].items() if name.endswith("_efficiency"))
    assert found["overhead"]["second_clone_runs"] == found["clone"]["second_clone_runs"] == 0
    assert found["simulation"]["records_lost"] == 0 and found["simulation"]["ratio"] >= 1
