"""What [export] becomes: a step for each format, and refusals at the format's line before anything runs."""

import pytest

from engine.compile.compiler import targets
from engine.core.errors import UserError
from engine.core.workspace import Workspace
from engine.plan.project import Project

COMMON = """
[tasks.a]
source = { kind = "synthetic", generator = "reports", rows = 40 }
prompts = ["Say {{ text }}"]
teacher = { kind = "gold", column = "text" }
max_new_tokens = 8

[mixture]
tasks = ["a"]
"""


def spec(formats, method='"lora"', more="", name="one"):
    return f"""
extends = ["parts/common.toml"]

[experiment]
name = "{name}"

[model]
name = "toy"
architecture = {{ kind = "llama", hidden_size = 32, layers = 1, heads = 2, max_length = 64 }}

[training]
method = {method}

[export]
formats = [
    {formats},
]
{more}"""


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


def test_merged_weights_come_from_a_merge_step_and_are_compared_with_the_adapter_on_its_base(project):
    found = project(spec('"merged", { kind = "merged", dtype = "nf4" }'))
    wanted = {"model": "initialize-toy", "adapter": "train-one", "weights": "merge-one", "test/a": "split-a/test.jsonl"}
    for name in ("export-one-merged-bfloat16", "export-one-merged-nf4"):
        assert reads(found.graph[name]) == wanted
    assert found.graph["export-one-merged-nf4"].parameters.tasks == {"a": 8}
    assert targets(found.specs[0]) == ("score-one", "export-one-merged-bfloat16", "export-one-merged-nf4")


def test_an_adapter_for_vllm_needs_no_merge(project):
    found = project(spec('"vllm"'))
    assert "merge-one" not in found.graph
    assert reads(found.graph["export-one-vllm"]) == {"model": "initialize-toy", "adapter": "train-one", "test/a": "split-a/test.jsonl"}


def test_a_whole_model_is_exported_as_it_is(project):
    found = project(spec('"merged", "vllm"', method='"full"'))
    for name in ("export-one-merged-bfloat16", "export-one-vllm"):
        assert reads(found.graph[name]) == {"model": "train-one", "test/a": "split-a/test.jsonl"}


def test_an_adapter_on_a_quantised_base_is_compared_with_its_merged_weights(project):
    found = project(spec('"merged"', method='"qlora"'))
    assert reads(found.graph["export-one-merged-bfloat16"]) == {"model": "merge-one", "test/a": "split-a/test.jsonl"}


def test_the_merge_of_the_spec_is_exported(project):
    merge = "[merge]\nadapters = { one = 0.5, two = 0.5 }"
    found = project(spec('"merged"', more=merge), spec('"merged"', name="two"))
    assert reads(found.graph["export-one-merged-bfloat16"]) == {"model": "merge-one", "test/a": "split-a/test.jsonl"}
    assert found.graph["merge-one"].parameters.adapters == {"one": 0.5, "two": 0.5}


def test_without_the_section_nothing_is_exported(project):
    text = spec('"merged"')
    found = project(text[: text.index("[export]")])
    assert not [step.name for step in found.graph if step.name.startswith("export")] and targets(found.specs[0]) == ("score-one",)


@pytest.mark.parametrize(
    ("formats", "method", "reason"),
    [
        ('"vllm"', '{ kind = "lora", use_dora = true }', "vLLM refuses adapters with DoRA"),
        ('"vllm"', '{ kind = "lora", modules_to_save = ["lm_head"] }', "vLLM refuses adapters with modules_to_save"),
        ('"vllm"', '{ kind = "lora", bias = "all" }', "vLLM refuses adapters with biases"),
        ('"vllm"', '{ kind = "lora", r = 32 }', "vLLM refuses rank 32, which is above max_lora_rank = 16"),
        ('"vllm"', '"ia3"', "vLLM serves low-rank adapters only, and this one is trained with ia3"),
        ('"merged"', '"prompt_tuning"', "it is trained with prompt_tuning, whose virtual tokens no format holds"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_at_its_line(project, formats, method, reason):
    with pytest.raises(UserError) as caught:
        _ = project(spec(formats, method=method)).graph
    (problem,) = caught.value.problems
    assert reason in problem.what and problem.hint
    assert problem.where.file == "specs/0.toml" and problem.where.line == 16


def test_added_tokens_are_refused_for_vllm(project):
    more = '[tokenization]\nspecial_tokens = ["<turn>"]'
    with pytest.raises(UserError, match="takes the embeddings of the base, so those of added tokens would be lost"):
        _ = project(spec('"vllm"', more=more)).graph


def test_a_larger_limit_of_vllm_takes_a_larger_rank(project):
    method = '{ kind = "lora", r = 32 }'
    assert "export-one-vllm" in project(spec('{ kind = "vllm", max_lora_rank = 32 }', method=method)).graph


def test_a_gguf_lora_is_refused_for_what_it_cannot_hold(project):
    pytest.importorskip("xllamacpp", reason="needs the extra gguf")
    with pytest.raises(UserError, match="a GGUF LoRA holds low-rank updates only, and this adapter has DoRA too"):
        _ = project(spec('"gguf_lora"', method='{ kind = "lora", use_dora = true }')).graph


def test_packages_that_are_not_installed_are_named_with_the_extra(project, monkeypatch):
    monkeypatch.setattr("engine.compile.export.find", lambda package: None if package == "xllamacpp" else "1")
    with pytest.raises(UserError) as caught:
        _ = project(spec('"gguf"')).graph
    assert "the format gguf-q8_0 needs packages that are not installed: xllamacpp" in str(caught.value)
    assert "pip install 'adapterbuild[gguf]'" in str(caught.value)


def test_a_format_that_is_listed_twice_is_refused(project):
    with pytest.raises(UserError, match="the format merged-bfloat16 is listed twice"):
        _ = project(spec('"merged", { kind = "merged", dtype = "bfloat16" }')).graph
