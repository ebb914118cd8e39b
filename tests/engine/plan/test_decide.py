"""The plan against a store in memory: each exit of the one decision function, and how changes travel down a chain."""

import json
from dataclasses import replace

import pytest

from engine.core.errors import Location
from engine.core.graph import Graph, Input, Step
from engine.core.part import Kind, Part, recipe, resource
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry
from engine.identity.text import recipe_of
from engine.plan.decide import Action, differences, make_plan, plan_resolve
from tests.support.memory_store import MemoryStore


class Toy(Part):
    number: float = recipe(1.0, "A number.")
    workers: int = resource(1, "Workers.")


KIND = Kind("toy", "A toy.", Toy)


def step(name: str, reads: dict[str, Input] | None = None, **values) -> Step:
    return Step(name, KIND, Toy(**values), reads or {}, "A toy.", Location("specs/toy.toml", 1), lambda path: Location("specs/toy.toml", 7))


def chain(**values) -> Graph:
    """a -> b -> c; b reads a file of a's artifact, c all of b's."""
    a = step("toy-a", **values)
    b = step("toy-b", {"rows": a.output("rows.jsonl")})
    return Graph([a, b, step("toy-c", {"model": b.output()})])


def identity(s: Step, code: str = "1", version: str = "1.0") -> str:
    inputs = {role: i.path for role, i in s.inputs.items()}
    return json.dumps(
        {
            "format": 2,
            "recipe": recipe_of(s.parameters),
            "inputs": inputs,
            "code": {"toy": {"stages.toy.body": code}},
            "environment": {"p": version},
        }
    )


def identities(graph: Graph, **changes) -> dict[str, str]:
    return {s.name: identity(s, **(changes if s.name == "toy-a" else {})) for s in graph}


def built(graph: Graph) -> MemoryStore:
    store = MemoryStore()
    for s in graph:
        store.build(s, identity(s), {"rows.jsonl": f"rows of {s.name}", "other": s.name})
    return store


def actions(graph: Graph, store: MemoryStore, texts: dict[str, str]) -> list[str]:
    return [str(d.action) for d in make_plan(graph, store, texts).decisions]


def test_nothing_built_runs_everything_for_certain():
    graph = chain()
    plan = make_plan(graph, MemoryStore(), identities(graph))
    assert [d.action for d in plan.decisions] == [Action.RUN] * 3
    assert [str(r) for r in plan["toy-b"].reasons] == ["never built", "depends on toy-a"]


def test_everything_built_keeps_everything():
    graph = chain()
    plan = make_plan(graph, built(graph), identities(graph))
    assert plan.up_to_date and plan.count(Action.KEEP) == 3


def test_a_recipe_field_is_named_with_old_new_and_place_and_followers_may_run():
    graph = chain()
    store = built(graph)
    edited = chain(number=2.0)
    plan = make_plan(edited, store, identities(edited))
    assert [str(d.action) for d in plan.decisions] == ["run", "maybe", "maybe"]
    (reason,) = plan["toy-a"].reasons
    assert (reason.cause, reason.subject, reason.old, reason.new) == ("recipe", "number", 1.0, 2.0)
    assert str(reason.where) == "specs/toy.toml:7"
    assert [str(r) for r in plan["toy-c"].reasons] == ["depends on toy-b"]


def test_a_resource_changes_nothing():
    graph = chain()
    edited = chain(workers=8)
    assert actions(edited, built(graph), identities(edited)) == ["keep"] * 3


@pytest.mark.parametrize(
    ("changes", "cause", "text"),
    [
        ({"code": "2"}, "code", "code of stages.toy.body changed"),
        ({"version": "2.0"}, "environment", "p  1.0 → 2.0"),
    ],
)
def test_code_and_environment_are_named(changes, cause, text):
    graph = chain()
    plan = make_plan(graph, built(graph), identities(graph, **changes))
    assert [(r.cause, str(r)) for r in plan["toy-a"].reasons] == [(cause, text)]
    assert plan["toy-a"].action is Action.RUN


def test_a_value_that_only_changes_its_type_counts():
    graph = chain()
    texts = identities(graph)
    store = built(graph)
    texts["toy-a"] = texts["toy-a"].replace('"number": 1.0', '"number": true')
    (reason,) = make_plan(graph, store, texts)["toy-a"].reasons
    assert (reason.old, reason.new) == (1.0, True)


def test_reverting_restores_the_whole_chain_from_the_run_cache():
    graph, edited = chain(), chain(number=2.0)
    store = built(graph)
    for s in edited:
        store.build(s, identity(s), {"rows.jsonl": f"edited rows of {s.name}", "other": s.name})
    plan = make_plan(graph, store, identities(graph))
    assert [d.action for d in plan.decisions] == [Action.RESTORE] * 3
    assert plan["toy-a"].reasons[-1].cause == "cached"
    assert "input toy-a changed" in [str(r) for r in plan["toy-b"].reasons]


def test_an_upstream_that_comes_out_the_same_lets_its_followers_be_kept():
    """Early cutoff through the run cache: the edited recipe once gave the same rows."""
    graph, edited = chain(), chain(number=2.0)
    store = built(edited)
    for s in graph:
        store.build(s, identity(s), {"rows.jsonl": f"rows of {s.name}", "other": s.name})
    assert actions(edited, store, identities(edited)) == ["restore", "keep", "keep"]


def test_only_what_is_read_of_an_artifact_counts():
    graph = chain()
    store = built(graph)
    a = graph["toy-a"]
    store.build(a, identity(a), {"rows.jsonl": "rows of toy-a", "other": "another file, which nobody reads"})
    assert actions(graph, store, identities(graph)) == ["keep"] * 3


def test_a_missing_output_is_restored_where_the_cache_holds_it():
    graph = chain()
    store = built(graph)
    del store.entries[graph["toy-b"].artifact]
    plan = make_plan(graph, store, identities(graph))
    assert [str(d.action) for d in plan.decisions] == ["keep", "restore", "keep"]
    assert [str(r) for r in plan["toy-b"].reasons] == ["artifacts/toy-b is missing"]


def test_a_missing_output_that_is_nowhere_runs():
    graph = chain()
    store = built(graph)
    entry = store.entries.pop(graph["toy-b"].artifact)
    del store.objects[entry.md5]
    assert actions(graph, store, identities(graph)) == ["keep", "run", "maybe"]


def test_an_edited_output_and_one_lost_from_the_cache_are_named():
    graph = chain()
    store = built(graph)
    store.entries[graph["toy-a"].artifact] = MemoryStore().put_folder({"rows.jsonl": "edited by hand"})
    del store.objects[store.entries[graph["toy-c"].artifact].md5]
    plan = make_plan(graph, store, identities(graph))
    assert [str(r) for r in plan["toy-a"].reasons] == ["artifacts/toy-a was edited"]
    assert [str(r) for r in plan["toy-c"].reasons] == ["artifacts/toy-c is not in the cache"]
    assert [str(d.action) for d in plan.decisions] == ["restore", "keep", "run"]


def test_an_output_of_an_earlier_run_under_the_lock_of_a_later_commit_was_not_edited():
    """As after `git pull`, where a colleague has built the step again."""
    graph = chain()
    store = built(graph)
    store.entries[graph["toy-a"].artifact] = store.put_folder({"rows.jsonl": "the result before"})
    plan = make_plan(graph, store, identities(graph))
    assert [str(r) for r in plan["toy-a"].reasons] == ["artifacts/toy-a is from another run than the one in dvc.lock"]
    assert plan["toy-a"].action is Action.RESTORE


def test_metrics_are_kept_by_git_and_need_no_cache():
    graph = chain()
    store = built(graph)
    del store.objects[store.entries[graph["toy-a"].metrics].md5]
    assert actions(graph, store, identities(graph)) == ["keep"] * 3


def test_an_edited_step_below_a_rebuilt_one_runs_unless_its_recipe_was_built_before():
    graph = chain()
    store = built(graph)
    a, b, c = chain(number=2.0)
    b = replace(b, parameters=Toy(number=5.0), inputs={"rows": a.output("rows.jsonl")})
    edited = Graph([a, b, c])
    assert actions(edited, store, identities(edited)) == ["run", "run", "maybe"]
    store.build(b, identity(b), {"rows.jsonl": "once", "other": "once"})
    for s in graph:
        store.build(s, identity(s), {"rows.jsonl": f"rows of {s.name}", "other": s.name})
    plan = make_plan(edited, store, identities(edited))
    assert plan["toy-b"].action is Action.MAYBE and plan["toy-b"].reasons[-1].cause == "perhaps-cached"


def test_a_source_file_without_a_producer_is_named_by_its_path():
    source = Input("data/rows.jsonl", where=Location("specs/toy.toml", 3))
    graph = Graph([step("toy-a", {"source": source})])
    store = MemoryStore(entries={"data/rows.jsonl": Entry("1" * 32)})
    store.build(graph["toy-a"], identity(graph["toy-a"]), {"rows.jsonl": "rows"})
    assert actions(graph, store, identities(graph)) == ["keep"]
    store.entries["data/rows.jsonl"] = Entry("2" * 32)
    assert str(make_plan(graph, store, identities(graph))["toy-a"].reasons[0]) == "input data/rows.jsonl changed"


def test_resolve_runs_where_what_it_would_write_is_not_there():
    expected = {dvcfile.IDENTITIES: "1" * 32 + ".dir", dvcfile.PARAMS: "2" * 32}
    right = {path: Entry(md5) for path, md5 in expected.items()}

    def decide(**found: Entry | None) -> list[str]:
        return [str(reason) for reason in plan_resolve(expected, right | found).reasons]

    assert plan_resolve(expected, right).action is Action.KEEP
    assert decide(**dict.fromkeys(expected)) == ["never built"]
    assert decide(**{dvcfile.PARAMS: None}) == ["params.yaml is missing"]
    assert decide(**{dvcfile.PARAMS: Entry("3" * 32)}) == ["specs, code or versions changed"]


def test_plan_data_is_what_programs_read():
    graph = chain()
    data = make_plan(graph, MemoryStore(), identities(graph)).as_data()
    assert data["steps"][0] == {
        "name": "toy-a",
        "kind": "toy",
        "action": "run",
        "reasons": [{"cause": "never-built", "subject": "toy-a", "old": None, "new": None, "where": None, "text": "never built"}],
    }


def test_differences_keep_types_apart_and_name_leaves():
    before = {"a": 1, "b": [1, 2], "c": {"d": "x"}, "gone": 1}
    now = {"a": 1.0, "b": [1, 3], "c": {"d": "x", "e": None}, "new": 2}
    found = {(".".join(map(str, path)), old, new) for path, old, new in differences(before, now)}
    assert found == {("a", 1, 1.0), ("b.1", 2, 3), ("gone", 1, None), ("new", None, 2)}
    assert differences({"a": [1]}, {"a": [1, 2]}) == [(("a",), [1], [1, 2])]


def test_a_recipe_value_that_becomes_a_table_is_a_reason_like_any_other():
    graph = chain()
    store = built(graph)
    texts = identities(graph)
    texts["toy-a"] = texts["toy-a"].replace('"number": 1.0', '"number": {"kind": "weights", "weights": [1]}')
    (reason,) = make_plan(graph, store, texts)["toy-a"].reasons
    assert (reason.old, reason.new) == (1.0, {"kind": "weights", "weights": [1]})
