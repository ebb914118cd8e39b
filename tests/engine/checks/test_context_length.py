"""Rows and answers that a model has no positions for are refused where they are asked for, before anything is made."""

import json

import pytest

from engine.compile.compiler import compile_each
from engine.spec.load import load_specs
from tests.support.toys import model, toy

TASK = """\
source = {{ kind = "jsonl", path = "a.jsonl" }}
prompts = ["{{{{ q }}}}"]
teacher = {teacher}
max_new_tokens = {asked}"""
GOLD = '{ kind = "gold", column = "a" }'


def scratch(kind="llama"):
    return model(kind, 64, "own")


@pytest.fixture
def found(tmp_path):
    def found(base, tokenization="", method='"lora"', asked=4, teacher=GOLD, more=None):
        task = TASK.format(teacher=teacher, asked=asked)
        specs = {"toy": toy({"a": task}, base=base, method=method, tokenization=tokenization)} | (more or {})
        for name, content in specs.items():
            (tmp_path / f"{name}.toml").write_text(content)
        return compile_each(load_specs([tmp_path / f"{name}.toml" for name in specs], tmp_path), root=tmp_path).problems

    return found


def folder(root, name="mine", **config):
    """A model's folder of which only the configuration is there."""
    (root / name).mkdir()
    (root / name / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    return f'path = "{name}"'


def at(problem):
    """The line that is shown, and what the caret points at."""
    where = problem.where
    return where.line, where.source[where.column - 1 :][: where.length]


@pytest.mark.parametrize("kind", ["llama", "falcon", "gpt2"])
def test_rows_that_a_model_from_scratch_has_no_positions_for(found, kind):
    (problem,) = found(scratch(kind), "max_length = 65")
    assert problem.what == "tokenization.max_length is 65, but model own has 64 positions" and at(problem) == (15, "65")
    column = scratch(kind).splitlines()[1].index("64") + 1
    assert problem.hint == f"set it to at most 64, or raise model.architecture.max_length (toy.toml:6:{column})"
    assert found(scratch(kind), "max_length = 64") == []


def test_a_length_that_nobody_gave_is_no_mistake(found):
    assert found(scratch()) == []


@pytest.mark.parametrize("kind", ["bloom", "t5"])
def test_positions_without_end_bound_nothing(found, kind):
    assert found(scratch(kind), "max_length = 5000", '"full"', asked=5000) == []


def test_rows_that_a_model_of_this_machine_has_no_positions_for(found, tmp_path):
    mine = folder(tmp_path, model_type="gpt2", n_positions=32)
    (problem,) = found(mine, "max_length = 33")
    assert "model mine has 32 positions" in problem.what and at(problem) == (14, "33")
    assert problem.hint == "set it to at most 32, or use a model with a longer context (mine/config.json: n_positions = 32)"
    assert found(mine, "max_length = 32") == []


@pytest.mark.parametrize("config", [{"alibi": True, "max_position_embeddings": 32}, {"model_type": "mamba"}])
def test_a_model_of_this_machine_that_bounds_nothing(found, tmp_path, config):
    assert found(folder(tmp_path, **config), "max_length = 33") == []


def test_both_sides_of_an_encoder_decoder_model(found, tmp_path):
    mine = folder(tmp_path, model_type="bart", is_encoder_decoder=True, max_position_embeddings=32)
    problems = found(mine, "max_length = 40\nmax_target_length = 50", '"full"', asked=32)
    assert [at(problem) for problem in problems] == [(14, "40"), (15, "50")], "the answer has positions of its own"


def test_virtual_tokens_take_positions(found):
    method = '{ kind = "prompt_tuning", num_virtual_tokens = 10 }'
    (problem,) = found(scratch(), "max_length = 60", method)
    assert "64 positions, 10 of them taken by the adapter's virtual tokens" in problem.what and "at most 54" in problem.hint
    assert len(found(scratch(), "", method, asked=54)) == 1 and not found(scratch(), "", method, asked=53)


def test_a_model_that_is_trained_further_has_the_positions_of_the_first(found):
    first = toy({"a": TASK.format(teacher=GOLD, asked=4)}, "first", scratch())
    (problem,) = found('experiment = "first"', 'name = "long"\nmax_length = 100', more={"first": first})
    assert "model own has 64 positions" in problem.what and "first.toml:6" in problem.hint and problem.where.file == "toy.toml"


def test_an_answer_that_leaves_no_room_for_its_question(found, tmp_path):
    (problem,) = found(folder(tmp_path, max_position_embeddings=32), asked=32)
    assert problem.what == "max_new_tokens 32 of task 'a' leaves no room for a prompt: model mine has 32 positions"
    assert at(problem) == (11, "32") and problem.hint.startswith("set it lower than 32, or use a model with a longer context")
    assert found('path = "mine"', asked=31) == []


@pytest.mark.parametrize(("pairs", "count"), [(False, 1), (True, 0)])
def test_an_answer_of_a_teacher_that_leaves_no_room_for_its_question(found, tmp_path, pairs, count):
    folder(tmp_path, "teacher", max_position_embeddings=32, is_encoder_decoder=pairs)
    problems = found(scratch(), teacher='{ kind = "local", path = "teacher", max_new_tokens = 32 }')
    assert len(problems) == count
    for problem in problems:
        assert "teacher.max_new_tokens 32 of task 'a' leaves no room" in problem.what and at(problem) == (11, "32")
