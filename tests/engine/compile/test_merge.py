"""What is merged into what, and adapters that cannot be merged are refused at the line that names them."""

import pytest

from engine.compile.compiler import targets
from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project

COMMON = """
[tasks.a]
source = { kind = "synthetic", generator = "reports", rows = 9 }
prompts = ["Say {{ text }}"]
teacher = { kind = "gold", column = "text" }
max_new_tokens = 8

[mixture]
tasks = ["a"]
"""


def spec(name, method='"lora"', merge=None, model="toy", more=""):
    section = "" if merge is None else f"\n[merge]\n{merge}\n"
    return f"""
extends = ["parts/common.toml"]

[experiment]
name = "{name}"

[model]
name = "{model}"
architecture = {{ kind = "llama", hidden_size = {32 if model == "toy" else 16}, layers = 1, heads = 2, max_length = 64 }}

[training]
method = {method}
{section}{more}"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "specs/parts").mkdir(parents=True)
    (tmp_path / "specs/parts/common.toml").write_text(COMMON)

    def make(*specs):
        for number, text in enumerate(specs):
            (tmp_path / f"specs/{number}.toml").write_text(text)
        return Project(Workspace.at(tmp_path))

    return make


def reads(step):
    return {role: item.path.removeprefix("artifacts/") for role, item in step.inputs.items()}


def test_the_own_adapter_is_merged_by_default(project):
    found = project(spec("one", merge="check_rows = 4"))
    step = found.graph["merge-one"]
    wanted = {"model": "initialize-toy", "adapter/one": "train-one", "rows/a": "split-a"}
    assert reads(step) == wanted and step.parameters.adapters == {"one": 1.0} and step.parameters.quantised is None
    assert targets(found.specs[0]) == ("score-one", "merge-one")


def test_without_the_section_nothing_is_merged(project):
    found = project(spec("one"))
    assert "merge-one" not in found.graph and targets(found.specs[0]) == ("score-one",)


def test_adapters_of_several_experiments(project):
    merge = 'adapters = { two = 0.5, one = 1 }\ncombination = { kind = "ties", density = 0.3 }'
    step = project(spec("one", merge=merge), spec("two")).graph["merge-one"]
    assert {role: path for role, path in reads(step).items() if "adapter" in role} == {
        "adapter/one": "train-one",
        "adapter/two": "train-two",
    }
    assert step.parameters.adapters == {"two": 0.5, "one": 1.0} and step.parameters.combination.density == 0.3


def test_quantised_trainings_say_how(project):
    step = project(spec("one", '{ kind = "qlora", bits = 8 }', "")).graph["merge-one"]
    assert step.parameters.quantised.bits == 8
    assert "bitsandbytes" in step.parameters.quantised.environment


def test_an_adapter_that_went_on_from_another_is_merged_into_their_base(project):
    further = spec("two", merge="").replace('name = "toy"\narchitecture', 'experiment = "one"\n#')
    assert reads(project(spec("one"), further).graph["merge-two"])["model"] == "initialize-toy"


TWO = "adapters = { one = 1.0, two = 0.5 }"

REFUSED = {
    "full": ([spec("one", '"full"', "")], ["'one' is trained with method full, which produces no adapter", "specs/0.toml:14"]),
    "prompt": ([spec("one", '"prompt_tuning"', "")], ["adds virtual tokens and cannot be merged", "specs/0.toml:14"]),
    "prefix": ([spec("one", merge=TWO), spec("two", '"prefix_tuning"')], ["'two' is trained with prefix_tuning", "specs/0.toml:15"]),
    "stranger": ([spec("one", merge="adapters = { oen = 1.0 }")], ["no experiment 'oen' in this workspace", "did you mean 'one'?"]),
    "base": ([spec("one", merge=TWO), spec("two", model="big")], ["'two' is an adapter on big, but 'one' starts from toy", "0.toml:15"]),
    "ia3": ([spec("one", merge=TWO), spec("two", '"ia3"')], ["trained with ia3, which cannot be combined", "0.toml:15"]),
    "dora": (
        [spec("one", merge=TWO), spec("two", '{ kind = "lora", use_dora = true }')],
        ["'two' trains more than low-rank updates (method.use_dora)", "0.toml:15"],
    ),
    "bits": (
        [spec("one", merge=TWO), spec("two", '"qlora"')],
        ["the bases of 'one' and 'two' are quantised differently", "0.toml:15"],
    ),
    "ranks": (
        [spec("one", merge=f'{TWO}\ncombination = "dare_ties"'), spec("two", '{ kind = "lora", r = 8 }')],
        ["dare_ties needs adapters of the same rank: 'one' has 16, 'two' 8", "0.toml:15"],
    ),
    "one": ([spec("one", merge='combination = "ties"')], ["ties combines several adapters", "0.toml:15"]),
    "density": ([spec("one", merge=f'{TWO}\ncombination = {{ kind = "ties", density = 2.0 }}')], ["density", "0.toml:16"]),
    "shards": ([spec("one", merge='max_shard_size = "5 potatoes"')], ["max_shard_size", "0.toml:15"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(project, case):
    specs, messages = REFUSED[case]
    with pytest.raises(UserError) as caught:
        _ = project(*specs).graph
    assert all(message in str(caught.value) for message in messages), str(caught.value)
