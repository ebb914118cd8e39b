"""Why a step would run: the chain up to its root causes, each step once, and the sentence at the end."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from engine.core.graph import Graph, Input
from engine.plan.decide import Action, Decision, Plan, Reason, make_plan
from engine.plan.why import explain
from tests.engine.plan.test_decide import built, chain, identities, identity, step
from tests.support.memory_store import MemoryStore


def why(name: str, graph: Graph, store: MemoryStore, texts: dict[str, str] | None = None):
    return explain(name, make_plan(graph, store, texts or identities(graph)), graph)


def steps(explanation) -> list[tuple[int, str]]:
    return [(link.depth, link.decision.name) for link in explanation.links]


def test_an_edited_recipe_far_above_is_the_root_cause():
    edited = chain(number=2.0)
    found = why("toy-c", edited, built(chain()))
    assert steps(found) == [(0, "toy-c"), (1, "toy-b"), (2, "toy-a")]
    assert found.sentence == "toy-c may run; root cause: toy-a: number  1.0 → 2.0 (specs/toy.toml:7)"
    lines = list(found.lines())
    assert lines[0] == ("toy-c: maybe", "") and lines[-1] == ("      - number  1.0 → 2.0", "specs/toy.toml:7")


def test_what_is_kept_says_so_and_shows_nothing_above():
    graph = chain()
    found = why("toy-c", graph, built(graph))
    assert steps(found) == [(0, "toy-c")] and found.causes == ()
    assert found.sentence.startswith("toy-c is up to date")


def test_a_step_that_is_kept_is_not_explained_by_one_above_that_is_only_restored():
    graph = chain()
    store = built(graph)
    del store.entries[graph["toy-a"].artifact]
    assert steps(why("toy-b", graph, store)) == [(0, "toy-b")]
    assert why("toy-a", graph, store).sentence == "toy-a would be restored; root cause: toy-a: artifacts/toy-a is missing"


def test_what_was_never_built_names_the_steps_together():
    graph = chain()
    assert why("toy-c", graph, MemoryStore()).sentence == "toy-c would run; root cause: toy-c, toy-b, toy-a: never built"


def test_an_input_that_came_out_otherwise_is_followed_to_the_step_that_changed():
    """toy-a was built with the edited recipe elsewhere: its result is restored, and toy-b sees another input."""
    graph, edited = chain(), chain(number=2.0)
    store = MemoryStore()
    store.build(edited["toy-a"], identity(edited["toy-a"]), {"rows.jsonl": "other rows"})
    for s in graph:
        store.build(s, identity(s), {"rows.jsonl": f"rows of {s.name}"})
    found = why("toy-b", edited, store)
    assert [str(link.decision.action) for link in found.links] == ["run", "restore"]
    assert [cause.reason.subject for cause in found.causes] == ["number"]


def test_an_input_whose_producer_is_kept_is_a_root_cause_itself():
    graph = chain()
    store = built(graph)
    store.build(graph["toy-a"], identity(graph["toy-a"]), {"rows.jsonl": "rebuilt alone"})
    found = why("toy-b", graph, store)
    assert steps(found) == [(0, "toy-b")]
    assert found.sentence == "toy-b would run; root cause: toy-b: input toy-a changed"


def test_each_step_stands_once_and_the_same_cause_is_told_once():
    a, d = step("toy-a"), step("toy-d")
    b, c = step("toy-b", {"x": a.output()}), step("toy-c", {"x": a.output(), "y": d.output()})
    graph = Graph([a, d, b, c, step("toy-e", {"x": b.output(), "y": c.output()})])
    store = built(graph)
    texts = {s.name: identity(s, code="2") for s in graph}
    found = why("toy-e", graph, store, texts)
    assert [name for _, name in steps(found)] == ["toy-e", "toy-b", "toy-a", "toy-c", "toy-d"]
    assert len(found.causes) == 1
    assert "toy-e, toy-b, toy-c, toy-a and 1 more: code of stages.toy.body changed" in found.sentence


def test_values_that_are_lists_are_told_apart():
    reasons = tuple(Reason("recipe", "prompts", ["a"], new) for new in (["a", "b"], ["c"]))
    plan = Plan(tuple(Decision(s.name, "toy", Action.RUN, reasons) for s in chain()))
    found = explain("toy-a", plan, chain())
    assert [cause.reason.new for cause in found.causes] == [["a", "b"], ["c"]]
    assert found.sentence == 'toy-a would run; root causes: toy-a: prompts  ["a"] → ["a", "b"]; toy-a: prompts  ["a"] → ["c"]'


def test_an_unknown_step_is_a_clear_error():
    with pytest.raises(UserError, match="unknown step 'toy-x'"):
        why("toy-x", chain(), MemoryStore())


def test_data_for_programs_is_json_and_holds_the_sentence():
    found = why("toy-b", chain(number=2.0), built(chain()))
    data = json.loads(json.dumps(found.as_data()))
    assert data["step"] == "toy-b" and data["sentence"] == found.sentence
    assert [(link["depth"], link["name"], link["action"]) for link in data["chain"]] == [(0, "toy-b", "maybe"), (1, "toy-a", "run")]
    (cause,) = data["root_causes"]
    assert (cause["old"], cause["new"], cause["steps"]) == (1.0, 2.0, ["toy-a"])


def test_a_chain_of_thousands_is_no_problem():
    chained = [step("toy-0", number=2.0)]
    for number in range(1, 2500):
        chained.append(step(f"toy-{number}", {"x": Input(chained[-1].artifact, chained[-1].name)}))
    found = why("toy-2499", Graph(chained), MemoryStore())
    assert len(found.links) == 2500 and "and 2496 more: never built" in found.sentence


@given(st.data())
def test_every_decision_that_is_not_kept_has_a_root_cause_in_its_chain(data):
    """Random graphs, partly built, partly edited."""
    graph_steps = []
    for name in string.ascii_lowercase[: data.draw(st.integers(1, 7))]:
        above = data.draw(st.lists(st.sampled_from(graph_steps), unique_by=lambda s: s.name)) if graph_steps else []
        graph_steps.append(step(f"toy-{name}", {s.name: s.output() for s in above}))
    graph, store = Graph(graph_steps), MemoryStore()
    for s in graph_steps[: data.draw(st.integers(0, len(graph_steps)))]:
        store.build(s, identity(s), {"rows": s.name})
    texts = {s.name: identity(s, code=data.draw(st.sampled_from("12"))) for s in graph}
    plan = make_plan(graph, store, texts)
    for decision in plan.decisions:
        found = explain(decision.name, plan, graph)
        names = [link.decision.name for link in found.links]
        assert len(names) == len(set(names)) and names[0] == decision.name
        assert bool(found.causes) is (decision.action is not Action.KEEP)
        assert {name for cause in found.causes for name in cause.steps} <= set(names)
