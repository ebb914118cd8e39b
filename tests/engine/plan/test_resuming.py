"""A plan knows of checkpoints of exactly the steps that it will run: of another recipe, or before an input is known, there is none."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engine.plan.decide import Planner, make_plan
from engine.plan.resuming import SCRATCH, resuming, scratch_of
from stages.process.saved import Saved
from tests.engine.plan.test_decide import built, chain, identities


def test_a_step_resumes_from_a_checkpoint_of_its_recipe_and_its_inputs(tmp_path: Path):
    graph = chain()
    store, now = built(graph), identities(graph)
    planner = Planner(graph, store, now)
    for step in graph:
        planner.decide(step)
    name = scratch_of(graph["toy-c"], planner)
    assert name
    folder = tmp_path / SCRATCH / name / "checkpoints"
    folder.mkdir(parents=True)
    for step in (3, 7):
        state = {"progress": {"step": step, "steps": 9, "seconds": 4.5 * step, "curve": [[1.0, 0.1, 0.2]]}}
        save_file({"w": np.zeros(1)}, folder / f"step-{step:08}.safetensors", {"state": json.dumps(state)})
    plan = make_plan(graph, store, now)
    assert resuming(tmp_path, plan, graph, store, now) == {}, "it is up to date"

    del store.records["toy-c"]
    store.run_cache.clear()
    plan = make_plan(graph, store, now)
    found = resuming(tmp_path, plan, graph, store, now)
    assert found == {"toy-c": Saved(7, 9, 31.5, (1.0,))} and str(found["toy-c"]) == "resumes at step 7 of 9"
    (folder / "step-00000007.safetensors").write_bytes(b"half")
    assert resuming(tmp_path, plan, graph, store, now)["toy-c"].step == 3

    other = {**now, "toy-c": now["toy-c"].replace('"1.0"', '"2.0"')}
    assert resuming(tmp_path, make_plan(graph, store, other), graph, store, other) == {}, "the checkpoint is of another identity"
    upstream = {**now, "toy-a": now["toy-a"].replace('"1.0"', '"2.0"')}
    assert resuming(tmp_path, make_plan(graph, store, upstream), graph, store, upstream) == {}, "what it will read is not known yet"
