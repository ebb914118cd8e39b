"""How formats, special tokens and tokenizers' files are wired into steps, and what a spec cannot ask for."""

import json

import pytest

from engine.compile.compiler import compile_each, compile_graph
from engine.core.errors import UserError
from engine.spec.load import load_spec
from tests.support.toys import GOLD, toy

LOCAL = 'path = "model"\ntokenizer_files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]'
T5 = 'name = "tiny"\narchitecture = { kind = "t5", hidden_size = 16, layers = 1, heads = 2, max_length = 64 }'
TASKS = {name: GOLD.replace("a.jsonl", f"{name}.jsonl") for name in "ab"}


def spec(tokenization="", method="lora", model=LOCAL):
    return toy(TASKS, base=model, method=f'"{method}"', tokenization=tokenization or 'boundary = "apart"')


def graph(folder, tokenization, method="lora", model=LOCAL):
    (folder / "toy.toml").write_text(spec(tokenization, method, model))
    compiled = compile_each([load_spec(folder / "toy.toml", folder)], root=folder)
    if compiled.problems:
        raise UserError(compiled.problems)
    return {step.name: step for step in compiled.steps}


def test_the_same_format_and_template_reach_tokens_and_questions(tmp_path):
    made = graph(tmp_path, 'format = { kind = "chat", template_file = "chat.jinja" }\nboundary = "shift"')
    for name in ("tokenize-a-model", "predict-toy"):
        step = made[name]
        assert step.inputs["chat_template"].path == "chat.jinja" and step.inputs["chat_template"].where.line == 19
        assert (step.parameters.format.template_file, step.parameters.boundary) == ("chat.jinja", "shift")
    assert made["tokenize-a-model"].inputs["tokenizer/chat_template.jinja"].path == "model/chat_template.jinja"


@pytest.mark.parametrize(
    ("tokenization", "config", "read"),
    [
        ('format = "chat"', {}, True),
        ('format = "chat"', {"chat_template": "{{ messages[0] }}"}, True),
        ('format = "chat"', {"chat_template": "{{ messages }}"}, False),
        ('format = { kind = "chat", template = "{{ messages }}" }', {}, False),
        ('format = "plain"', {}, False),
    ],
)
def test_a_template_in_a_file_of_its_own_is_read_where_the_format_needs_it(tmp_path, tokenization, config, read):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(config))
    local = 'path = "model"'
    without = graph(tmp_path, tokenization, model=local)
    (tmp_path / "model/chat_template.jinja").write_text("{{ messages }}")
    with_it = graph(tmp_path, tokenization, model=local)
    for name in ("tokenize-a-model", "predict-toy"):
        added = with_it[name].inputs.keys() - without[name].inputs.keys()
        assert added == ({"tokenizer/chat_template.jinja"} if read and name.startswith("tokenize") else set())


def test_special_tokens_are_one_step_for_all_tasks(tmp_path):
    made = graph(tmp_path, 'special_tokens = ["<|human|>", "<|bot|>"]')
    step = made["vocabulary-model"]
    assert (
        step.parameters.special_tokens == ("<|human|>", "<|bot|>")
        and step.inputs["tokenizer/tokenizer.json"].path == "model/tokenizer.json"
    )
    for name in ("tokenize-a-model", "tokenize-b-model"):
        assert made[name].inputs["tokenizer/tokenizer.json"].path == "artifacts/vocabulary-model/tokenizer.json"
    for name in ("train-toy", "predict-toy"):
        assert made[name].inputs["vocabulary"].producer == "vocabulary-model" and made[name].inputs["model"].path == "model"


def test_a_fully_trained_model_has_its_new_tokens_itself(tmp_path):
    made = graph(tmp_path, 'special_tokens = ["<|human|>"]', "full")
    assert "vocabulary" in made["train-toy"].inputs and "vocabulary" not in made["predict-toy"].inputs


def test_without_special_tokens_there_is_no_such_step(tmp_path):
    assert not [step.name for step in graph(tmp_path, "").values() if step.kind.name == "vocabulary"]


def test_a_method_that_cannot_learn_new_tokens_refuses_them(tmp_path, monkeypatch):
    from stages.train.methods.lora import Lora

    monkeypatch.setattr(Lora, "learns_new_tokens", False)
    with pytest.raises(UserError, match="method 'lora' cannot train the embeddings of special_tokens") as caught:
        graph(tmp_path, 'special_tokens = ["<|human|>"]')
    assert caught.value.problems[0].where.line == 19


@pytest.mark.parametrize(
    ("tokenization", "said"),
    [
        ('format = { kind = "chat", template = "x", template_file = "y" }', "give template or template_file, not both"),
        ('format = { kind = "plain", prompt = "no place" }', "exactly once"),
        ('format = { kind = "chat", date = "today" }', "date"),
        ('encoder_decoder = true\nmask = "full"', "the mask must be completion"),
        ('mask = "asistant"', "did you mean 'assistant'?"),
        ("max_target_length = 9", "for encoder-decoder models"),
        ("encoder_decoder = false\nmax_target_length = 9", "for encoder-decoder models"),
    ],
)
def test_what_a_spec_cannot_ask_for_is_located(tmp_path, tokenization, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")) as caught:
        graph(tmp_path, tokenization)
    assert caught.value.problems[0].where.line in (19, 20)


def test_the_tokenizers_configuration_is_always_needed(tmp_path):
    (tmp_path / "toy.toml").write_text(spec().replace('"tokenizer_config.json", ', ""))
    with pytest.raises(UserError, match=r"tokenizer_files must contain tokenizer_config\.json"):
        load_spec(tmp_path / "toy.toml", tmp_path)


def test_a_tokenizer_in_python_is_read_by_a_version_of_transformers(tmp_path):
    text = spec().replace('"tokenizer.json", ', "").replace("chat_template.jinja", "vocab.txt")
    (tmp_path / "toy.toml").write_text(text)
    made = compile_graph([load_spec(tmp_path / "toy.toml", tmp_path)])
    assert any("transformers" in part.environment for part in made["tokenize-a-model"].parameters.parts())
    assert not any("transformers" in part.environment for part in graph(tmp_path, "")["tokenize-a-model"].parameters.parts())
    (tmp_path / "toy.toml").write_text(text.replace("[tokenization]", '[tokenization]\nspecial_tokens = ["<|a|>"]'))
    with pytest.raises(UserError, match=r"require a tokenizer\.json"):
        compile_graph([load_spec(tmp_path / "toy.toml", tmp_path)])


def pairs(made):
    """Whether each step that asks it takes its rows for pairs."""
    return {name: step.parameters.encoder_decoder for name, step in made.items() if "encoder_decoder" in type(step.parameters).model_fields}


def test_the_architecture_says_whether_rows_are_pairs(tmp_path):
    found = pairs(graph(tmp_path, "max_target_length = 9", "full", T5))
    assert found == {"tokenize-a-tiny": True, "tokenize-b-tiny": True, "predict-toy": True}
    assert pairs(graph(tmp_path, "encoder_decoder = true", "full", T5)) == found
    assert not any(pairs(graph(tmp_path, "", "full", T5.replace("t5", "llama").replace("64", "65"))).values())


def test_so_does_the_configuration_of_a_model_that_is_here(tmp_path):
    (tmp_path / "model").mkdir()
    assert not any(pairs(graph(tmp_path, "")).values()), "the folder's problem, not this one's"
    assert all(pairs(graph(tmp_path, "encoder_decoder = true")).values())
    (tmp_path / "model/config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    assert all(pairs(graph(tmp_path, "")).values())
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="encoder_decoder is true, but model model is a causal model"):
        graph(tmp_path, "encoder_decoder = true")


def test_a_model_that_is_trained_further_is_what_it_was(tmp_path):
    graph(tmp_path, "", "full", T5)
    text = (tmp_path / "toy.toml").read_text().replace('"toy"', '"next"').replace(T5, 'experiment = "toy"')
    (tmp_path / "next.toml").write_text(text)
    specs = [load_spec(tmp_path / name, tmp_path) for name in ("toy.toml", "next.toml")]
    assert compile_graph(specs)["predict-next"].parameters.encoder_decoder


@pytest.mark.parametrize(
    ("tokenization", "said", "line"),
    [
        ("encoder_decoder = false", "encoder_decoder is false, but model tiny is an encoder-decoder model", 19),
        ('nothing_supervised = "drop"\nmask = "full"', "the mask must be completion", 20),
        ('over_length = "split"', "cannot be split", 19),
    ],
)
def test_what_a_spec_says_against_its_model_is_located(tmp_path, tokenization, said, line):
    with pytest.raises(UserError, match=said) as caught:
        graph(tmp_path, tokenization, "full", T5)
    assert [problem.where.line for problem in caught.value.problems] == [line]
