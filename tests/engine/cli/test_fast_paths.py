"""Short cuts of the plan give what the long way gives: identity texts, shared parts, plain templates, equal steps."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compile.compiler import compile_graph
from engine.core.errors import UserError
from engine.identity.environment import Environment
from engine.identity.text import Identities
from engine.spec.load import load_spec, load_specs
from engine.spec.references import PLAIN_TEMPLATE, template_error
from engine.spec.sections import Spec
from tests.support.toys import toy

ROOT = Path(__file__).parents[3]
SPECS = sorted((ROOT / "specs").glob("*.toml"))

WHOLE = toy(name="one", base='path = "models/base"', method='"lora"', more="learning_rate = 1e-3\n")


def same(one: Spec, other: Spec) -> bool:
    return (one.path, one.experiment, one.origins, one.files) == (other.path, other.experiment, other.origins, other.files)


def test_identity_texts_are_what_json_dumps_writes():
    identities = Identities(ROOT, Environment(ROOT))
    for step in compile_graph(load_specs(SPECS, ROOT)):
        assert identities.text(step) == json.dumps(identities.of(step), sort_keys=True, indent=1, allow_nan=False) + "\n"


def test_specs_that_share_parts_are_as_each_is_alone():
    together = load_specs(SPECS, ROOT)
    assert all(same(spec, load_spec(ROOT / spec.path, ROOT)) for spec in together)
    assert len(together) == len(SPECS)


def test_a_place_is_that_of_the_nearest_value_that_a_file_gives():
    for spec in load_specs(SPECS, ROOT):
        for path, place in spec.origins.items():
            assert spec.where(*path) == place and spec.where(*path, "no such key") == place
        assert spec.where().file == spec.where("no such section").file == spec.path and spec.where().line is None


def write_parts(root: Path, extends: str) -> Path:
    """A spec over the parts `low` and `high`, which set one value differently."""
    (root / "specs").mkdir()
    for part, seed in (("low", 1), ("high", 2)):
        (root / f"specs/{part}.toml").write_text(f"[experiment]\nseed = {seed}\n")
    (root / "specs/one.toml").write_text(f"extends = {extends}\n{WHOLE}")
    return root / "specs/one.toml"


@pytest.mark.parametrize(
    ("extends", "seed"),
    [('["low.toml", "high.toml"]', 2), ('["high.toml", "low.toml"]', 1), ('["low.toml", "high.toml", "low.toml"]', 1)],
)
def test_the_last_part_wins_even_when_it_is_named_twice(tmp_path: Path, extends: str, seed: int):
    assert load_spec(write_parts(tmp_path, extends), tmp_path).experiment.experiment.seed == seed


def test_a_broken_part_is_reported_once_and_a_circle_for_every_order(tmp_path: Path):
    path = write_parts(tmp_path, '["low.toml"]')
    path.with_name("two.toml").write_text(path.read_text("utf-8").replace('name = "', 'name = "two-', 1))
    path.with_name("low.toml").write_text("[experiment\n")
    for paths in ([path, path.with_name("two.toml")], [path.with_name("two.toml"), path]):
        with pytest.raises(UserError) as caught:
            load_specs(paths, tmp_path)
        assert len(caught.value.problems) == 1 and "not valid TOML" in str(caught.value)
    path.with_name("low.toml").write_text('extends = ["one.toml"]\n')
    for paths in ([path, path.with_name("low.toml")], [path.with_name("low.toml"), path]):
        with pytest.raises(UserError, match="in a cycle"):
            load_specs(paths, tmp_path)


@given(st.text("{} %#ab_1.\n"))
def test_a_template_that_is_taken_for_plain_is_one_that_jinja_parses(template: str):
    from jinja2 import Environment as Jinja

    if PLAIN_TEMPLATE.fullmatch(template):
        Jinja().parse(template)


@pytest.mark.parametrize(
    ("template", "plain"),
    [("Say {{ word }}:", True), ("{{a}}\n\n{{ b_1 }}", True), ("{{ a.b }}", False), ("{{ not }}", False), ("{ a }", False)],
)
def test_only_columns_by_name_are_plain(template: str, plain: bool):
    assert bool(PLAIN_TEMPLATE.fullmatch(template)) == plain
    if plain:
        assert template_error(template) is None
