"""Which changes may be accepted, and that every other one is refused by name, all or none."""

import json
import re
from dataclasses import replace

import pytest

from engine.artifacts.accept import as_data, judge
from engine.core.errors import UserError
from engine.core.graph import Graph, Input
from engine.dvc import dvcfile
from engine.dvc.dvcfile import Entry
from engine.identity.text import digest
from engine.plan.decide import make_plan
from engine.plan.why import acceptable
from tests.engine.plan.test_decide import built, chain, identities, identity, step
from tests.support.memory_store import MemoryStore


def everywhere(graph: Graph, **changes: str) -> dict[str, str]:
    """Identities as after a change of what all steps share."""
    return {s.name: identity(s, **changes) for s in graph}


def refused(graph: Graph, store: MemoryStore, texts: dict[str, str], *names: str) -> str:
    with pytest.raises(UserError) as caught:
        judge(graph, store, texts, names)
    return str(caught.value)


@pytest.mark.parametrize(("changes", "text"), [({"code": "2"}, "code of stages.toy.body changed"), ({"version": "2.0"}, "p  1.0 → 2.0")])
def test_code_and_versions_may_be_accepted(changes, text):
    graph = chain()
    (accepted,) = judge(graph, built(graph), identities(graph, **changes), ["toy-a"])
    assert accepted.step.name == "toy-a" and str(accepted) == f"toy-a is kept: {text}"
    assert accepted.before == digest(identity(graph["toy-a"])) != accepted.now == digest(identity(graph["toy-a"], **changes))
    (data,) = json.loads(json.dumps(as_data([accepted])))
    assert data["step"] == "toy-a" and data["from"] == accepted.before and data["reasons"][0]["text"] == text


def test_what_is_up_to_date_is_left_out():
    graph = chain()
    assert judge(graph, built(graph), identities(graph), ["toy-a", "toy-c"]) == ()


def test_a_whole_chain_is_accepted_together_and_in_any_order():
    graph = chain()
    accepted = judge(graph, built(graph), everywhere(graph, code="2"), ["toy-c", "toy-a", "toy-b"])
    assert [a.step.name for a in accepted] == ["toy-a", "toy-b", "toy-c"]
    # What a step follows is no reason of its own once that is accepted.
    assert {reason.cause for a in accepted for reason in a.reasons} == {"code"}


def test_a_step_below_one_that_is_not_kept_is_refused_and_the_hint_accepts_both():
    graph = chain()
    store, texts = built(graph), everywhere(graph, code="2")
    text = refused(graph, store, texts, "toy-c")
    assert "toy-c cannot be accepted: depends on toy-b" in text
    names = re.search(r"engine accept (.+)", text)[1].split()
    assert len(judge(graph, store, texts, names)) == 3


def test_a_recipe_is_refused_by_name_even_beside_a_change_of_code():
    graph, edited = chain(), chain(number=2.0)
    text = refused(edited, built(graph), {s.name: identity(s, code="2") for s in edited}, "toy-a")
    assert "toy-a cannot be accepted: number  1.0 → 2.0" in text and "specs/toy.toml:1" in text and "code of" not in text


def test_all_or_none():
    graph = chain()
    store = built(graph)
    del store.records["toy-c"]
    text = refused(graph, store, everywhere(graph, code="2"), "toy-a", "toy-b", "toy-c")
    assert "toy-c cannot be accepted: never built" in text and "toy-a cannot" not in text


def test_what_was_never_built_or_whose_old_identity_is_lost_is_refused():
    graph = chain()
    assert "never built" in refused(graph, MemoryStore(), identities(graph), "toy-a")
    store = built(graph)
    del store.objects[dvcfile.text_md5(identity(graph["toy-a"]))]
    assert "the old identity is not in the cache" in refused(graph, store, identities(graph, code="2"), "toy-a")


def test_an_input_that_changed_is_refused():
    graph = Graph([step("toy-a", {"source": Input("data/rows.jsonl")})])
    store = MemoryStore(entries={"data/rows.jsonl": Entry("1" * 32)})
    store.build(graph["toy-a"], identity(graph["toy-a"]), {"rows.jsonl": "rows"})
    store.entries["data/rows.jsonl"] = Entry("2" * 32)
    assert "input data/rows.jsonl changed" in refused(graph, store, identities(graph, code="2"), "toy-a")


def test_another_wiring_is_refused():
    graph = chain()
    a, b, c = graph
    b = replace(b, inputs={"rows": a.output("other")})
    rewired = Graph([a, b, c])
    text = refused(rewired, built(graph), {s.name: identity(s, code="2") for s in rewired} | {"toy-a": identity(a)}, "toy-b")
    assert "artifacts/toy-a/rows.jsonl → artifacts/toy-a/other" in text


@pytest.mark.parametrize(
    ("content", "cached", "word"),
    [
        (None, False, "is missing"),
        ("edited by hand", False, "was edited"),
        ("built earlier", True, "is from another run than the one in dvc.lock"),
    ],
)
def test_a_result_that_is_not_the_recorded_one_is_never_blessed(content, cached, word):
    graph = chain()
    store, path = built(graph), graph["toy-a"].artifact
    del store.entries[path]
    if content:
        store.entries[path] = (store if cached else MemoryStore()).put_folder({"rows.jsonl": content})
    for texts in (identities(graph), identities(graph, code="2")):
        text = refused(graph, store, texts, "toy-a")
        assert text.count(f"artifacts/toy-a {word}") == 1


def test_a_result_that_the_cache_has_for_the_new_code_is_restored_and_not_replaced():
    graph = chain()
    store = MemoryStore()
    for code in ("2", "1"):
        for s in graph:
            store.build(s, identity(s, code=code), {"rows.jsonl": f"rows of {s.name} by {code}"})
    assert "the cache has the result of an earlier run" in refused(graph, store, identities(graph, code="2"), "toy-a")


def test_the_plan_can_name_the_steps_that_accept_takes():
    graph = chain()
    store = built(graph)
    assert acceptable(make_plan(graph, store, identities(graph))) == []
    assert acceptable(make_plan(graph, store, identities(graph, code="2"))) == ["toy-a"]
    texts = identities(graph, code="2") | {"toy-c": identity(graph["toy-c"], version="2")}
    names = acceptable(make_plan(graph, store, texts))
    assert names == ["toy-a", "toy-c"] == [a.step.name for a in judge(graph, store, texts, names)]
    # Below a recipe that changed nothing can be accepted.
    edited = chain(number=2.0)
    assert acceptable(make_plan(edited, store, {s.name: identity(s, code="2") for s in edited})) == []
