"""Identity: canonical form, recipe against resources for every field of every kind, and code digests."""

import ast
import math
import shutil
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UserError
from engine.core.part import Part, is_resource
from engine.identity.code import Code, tree_digest
from engine.identity.environment import Environment
from engine.identity.text import canonical, merge_resources, recipe_of, resources_of
from engine.spec.sections import Experiment
from stages.kinds import KINDS

ROOT = Path(__file__).parents[3]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """VALUE with types made visible, so that == tells 1, 1.0 and True apart."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return (type(value).__name__, repr(value))


@given(json_values, json_values)
def test_canonical_form_is_equal_exactly_for_equal_values_of_equal_types(a, b):
    assert (canonical(a) == canonical(b)) == (typed(a) == typed(b))


def test_canonical_form_keeps_the_four_ones_apart_and_ignores_key_order():
    assert len({canonical(one) for one in (1, 1.0, True, "1")}) == 4
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(math.nan)


def all_parts() -> list[type[Part]]:
    """Every part class that a kind's parameters or a spec can hold."""
    found: dict[type[Part], None] = {}

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Part) and annotation not in found:
            found[annotation] = None
            for info in annotation.model_fields.values():
                visit(info.annotation)
        for argument in get_args(annotation):
            visit(argument)

    for kind in KINDS.values():
        visit(kind.parameters)
    visit(Experiment)
    return list(found)


@pytest.mark.parametrize("part", all_parts(), ids=lambda part: part.__name__)
def test_every_field_is_recipe_or_resource_and_says_what_it_means(part: type[Part]):
    for name, info in part.model_fields.items():
        if name == "kind":
            continue
        assert info.description, f"{part.__name__}.{name} has no description"
        built = part.model_construct(**{name: 1})
        assert (name in recipe_of_partial(built, name)) != is_resource(info)


def recipe_of_partial(part: Part, name: str) -> dict[str, Any]:
    """The recipe of a part of which only one field is set."""
    for other in type(part).model_fields:
        if other != name:
            object.__setattr__(part, other, 0)
    return recipe_of(part)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_recipe_field_moves_the_identity_and_a_resource_does_not(kind):
    fields = kind.parameters.model_fields
    base = dict.fromkeys(fields, "before")
    before = canonical(recipe_of(kind.parameters.model_construct(**base)))
    for name, info in fields.items():
        after = canonical(recipe_of(kind.parameters.model_construct(**{**base, name: "after"})))
        assert (after == before) == is_resource(info), name


def test_resources_and_recipe_together_are_the_parameters_again():
    parameters = KINDS["predict"].parameters.model_validate({"tasks": {"a": {"max_new_tokens": 3}}, "decoding": "greedy", "batch_rows": 5})
    merged = merge_resources(recipe_of(parameters), resources_of(parameters))
    assert merged["batch_rows"] == 5 and merged["tasks"] == {"a": {"max_new_tokens": 3}}
    assert resources_of(parameters) == {"batch_rows": 5, "threads": None}


def digest(source: str) -> str:
    return tree_digest(ast.parse(textwrap.dedent(source)))


def test_comments_docstrings_and_formatting_leave_the_code_digest_alone():
    plain = digest('def f(a, b=1):\n    return a + b\nX = "text"\n')
    assert plain == digest(
        '''
        """A module."""

        # a comment
        def f(
            a,
            b=1,
        ):
            """A docstring."""
            return (a
                    + b)  # another


        X = "text"
        """A docstring of an attribute."""
        '''
    )


@pytest.mark.parametrize(
    "changed",
    ["def f(a, b=2):\n    return a + b\n", "def f(a, b=1.0):\n    return a + b\n", "def f(a, b=True):\n    return a + b\n",
     "def f(a, b=1):\n    return a - b\n", "def g(a, b=1):\n    return a + b\n", "async def f(a, b=1):\n    return a + b\n"],
)  # fmt: skip
def test_behaviour_moves_the_code_digest(changed):
    assert digest(changed) != digest("def f(a, b=1):\n    return a + b\n")


def write(root: Path, **modules: str) -> None:
    for name, text in modules.items():
        path = root / "stages" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_closure_follows_imports_inside_functions_but_not_declarations(tmp_path):
    write(
        tmp_path,
        kind__body="from stages.kind import Parameters\nfrom stages.rows import text\ndef run():\n    from stages.rows.late import x\n",
        rows__text="import json\nfrom stages.rows.deep import y\n",
        rows__deep="import os\n",
        rows__late="x = 1\n",
        kind__members__other="z = 1\n",
    )
    (tmp_path / "stages/kind/__init__.py").write_text("from stages.kind.members.other import z\n")
    closure = Code(tmp_path).closure(["stages.kind.body"])
    assert list(closure) == ["stages.kind.body", "stages.rows.deep", "stages.rows.late", "stages.rows.text"]


def test_a_behaviour_edit_in_a_helper_moves_only_the_steps_that_reach_it(tmp_path):
    write(tmp_path, a__body="from stages.rows.text import f\n", b__body="import json\n", rows__text="f = 1\n")
    before = {name: Code(tmp_path).closure([f"stages.{name}.body"]) for name in "ab"}
    write(tmp_path, rows__text="f = 2\n")
    after = {name: Code(tmp_path).closure([f"stages.{name}.body"]) for name in "ab"}
    assert before["a"] != after["a"] and before["b"] == after["b"]


WATCHING = {
    *("process.starting", "process.parent", "process.progress", "process.quiet"),
    *("train.distributed.launch", "train.distributed.hosts", "train.distributed.torchrun"),
    *("train.logging.loggers", "train.logging.observer", "train.logging.services", "train.loop.timing", "train.memory.peak"),
}
"""What starts, logs and watches steps."""


def test_what_starts_logs_and_watches_steps_is_no_part_of_any_identity(tmp_path: Path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    modules = [".".join(path.relative_to(tmp_path).with_suffix("").parts) for path in (tmp_path / "stages").rglob("*.py")]
    before = {module: Code(tmp_path).closure([module]) for module in modules}
    for name in WATCHING:
        path = tmp_path / f"stages/{name.replace('.', '/')}.py"
        path.write_text(path.read_text() + "\nANOTHER = 1\n")
    assert {module: Code(tmp_path).closure([module]) for module in modules} == before
    assert not {f"stages.{name}" for name in WATCHING} & {found for closure in before.values() for found in closure}
    assert {"stages.train.loop.loss", "stages.process.numerics"} <= before["stages.train.body"].keys()


def test_code_that_is_no_python_is_a_located_error(tmp_path):
    write(tmp_path, a__body="def f(:\n")
    with pytest.raises(UserError) as error:
        Code(tmp_path).closure(["stages.a.body"])
    where = error.value.problems[0].where
    assert where is not None and where.line == 1 and where.file.endswith("stages/a/body.py")


def test_the_lock_decides_versions_and_local_labels_do_not_count(tmp_path):
    (tmp_path / "requirements.lock").write_text("# c\ntorch==2.13.0+cu130\nruamel.yaml==0.19.1\nDVC_data==1.0 ; python_version > '3'\n")
    environment = Environment(tmp_path)
    assert environment.version("torch") == "2.13.0"
    assert environment.version("ruamel-yaml") == "0.19.1" and environment.version("dvc-data") == "1.0"
    assert environment.version("pydantic").startswith("2.")
    with pytest.raises(UserError, match="not installed"):
        environment.version("no-such-package-here")


def test_a_lock_with_digests_says_what_the_same_lock_without_them_says(tmp_path):
    with_digests = (ROOT / "requirements.lock").read_text("utf-8")
    without = "\n".join(line.removesuffix(" \\") for line in with_digests.splitlines() if not line.startswith("    --hash="))
    (tmp_path / "requirements.lock").write_text(without)
    assert "--hash" in with_digests and Environment(ROOT)._locked == Environment(tmp_path)._locked
    assert Environment(ROOT)._locked["torch"] == "2.13.0" and Environment(ROOT)._locked["ruamel-yaml-clib"] == "0.2.15"
