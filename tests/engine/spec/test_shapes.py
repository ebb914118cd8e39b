"""Shapes read off annotations; and any change of a valid spec either loads or is explained, never a crash."""

import copy
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from engine.core.errors import UserError
from engine.core.part import Part, named, recipe
from engine.spec.load import load_spec
from engine.spec.sections import Experiment
from engine.spec.shapes import AnyOf, Array, Choice, Family, Map, Scalar, Table, shape_of, shape_of_field

tomlkit = pytest.importorskip("tomlkit")


class One(Part):
    kind: Literal["one", "uno"] = "one"


class Two(Part):
    kind: Literal["two"] = "two"


Numbers = Annotated[One | Two, Field(discriminator="kind"), named]


class Holder(Part):
    direct: Numbers = recipe()
    perhaps: Numbers | None = recipe(None)
    many: tuple[Numbers, ...] = recipe(())


@pytest.mark.parametrize(
    ("annotation", "shape", "words"),
    [
        (int, Scalar(int), "an integer"),
        (float | None, Scalar(float), "a number"),
        (Literal["a", "b"], Choice(("a", "b")), "'a' or 'b'"),
        (Literal[False], Choice((False,)), "false"),
        (tuple[str, ...], Array((), Scalar(str)), "an array of strings"),
        (tuple[float, float], Array((Scalar(float), Scalar(float)), None), "an array of 2 values"),
        (dict[str, Annotated[float, Field(gt=0)]], Map(Scalar(float)), "a table"),
        (Literal["a"] | tuple[int, ...], AnyOf((Choice(("a",)), Array((), Scalar(int)))), "'a' or an array of integers"),
        (One, Table(One), "a table"),
    ],
)
def test_shapes_of_annotations(annotation, shape, words):
    assert shape_of(annotation) == shape
    assert shape.words == words


@pytest.mark.parametrize("name", ["direct", "perhaps", "many"])
def test_families_are_found_wherever_they_stand(name):
    shape = shape_of_field(Holder.model_fields[name])
    shape = shape.rest if isinstance(shape, Array) else shape
    assert shape == Family("kind", {"one": One, "uno": One, "two": Two})


def test_the_sorts_of_model_are_a_family_told_apart_by_their_keys():
    shape = shape_of_field(Experiment.model_fields["model"])
    assert isinstance(shape, Family) and shape.key is None
    assert sorted(shape.members) == ["architecture", "experiment", "gguf", "id", "path"]


def test_no_shape_of_a_spec_lacks_words():
    todo: list[Any] = [Table(Experiment)]
    seen = []
    while todo:
        shape = todo.pop()
        if shape in seen:
            continue
        seen.append(shape)
        assert "another" not in shape.words
        if isinstance(shape, Table):
            todo += [shape_of_field(field) for field in shape.part.model_fields.values()]
        elif isinstance(shape, Family):
            todo += [Table(part) for part in shape.members.values()]
        elif isinstance(shape, Map):
            todo.append(shape.values)
        elif isinstance(shape, Array):
            todo += [*shape.items, *([shape.rest] if shape.rest else [])]
    assert len(seen) > 20


def places(value: object, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


NAMES = st.sampled_from(["kind", "name", "tasks", "[key]", "llama", "path", "id", "x y", "extends", "weights", "0", "lora", "", "headline"])
SINGLE = st.one_of(NAMES, st.integers(-2, 10**400), st.booleans(), st.floats(), st.text(max_size=3), st.dates())
VALUES = st.recursive(SINGLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_change_of_a_valid_spec_loads_or_is_explained(valid, data):
    document = tomllib.loads(valid)
    document["evaluation"] = {"metrics": ["rouge", {"kind": "length"}], "tasks": ["headline"]}
    document["mixture"]["sampler"] = {"kind": "weights", "weights": {"headline": 1.0}}
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(places(document)))
        around: Any = document
        for key in parents:
            around = around[key]
        key = data.draw(NAMES) if isinstance(around, dict) and data.draw(st.booleans()) else last
        around[key] = copy.deepcopy(data.draw(VALUES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.toml")
        path.write_text(tomlkit.dumps(document), "utf-8")
        try:
            assert load_spec(path, Path(folder)).experiment.tasks
        except UserError as error:
            for problem in error.problems:
                assert problem.where.file == "a.toml"
                missing_section = problem.what.startswith("missing section")
                assert problem.where.line is not None or missing_section or "digits" in problem.what, problem
