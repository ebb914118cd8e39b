"""The local teacher: answers are the model's own, in the order of the rows, the same in any batch, and not lost with a killed run."""

import json
from pathlib import Path

import pytest
import torch

from engine.core.errors import Location, UserError
from stages.generate.asking import here
from stages.generate.question import Question, Tally
from stages.generate.teachers.local import Local
from stages.models.folders import load_model, load_tokenizer
from stages.process.job import Job
from tests.stages.initialize.tiny import make_model


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """A Falcon that nobody has trained: it says anything, and seldom ends."""
    return make_model(tmp_path_factory.mktemp("random"))


WORDS = "red green blue one two three four five cat dog bird fish".split()


def ask(folder, prompts, scratch, system="", **changes):
    teacher = Local(**({"path": str(folder), "max_new_tokens": 6, "threads": 1, "on_cut_off": "keep"} | changes))
    scratch.mkdir(exist_ok=True)
    questions = (Question(system, prompt, {}, Location("rows.jsonl", number)) for number, prompt in enumerate(prompts, 1))
    job, tally = Job("generate-x", {"teacher": Path(folder)}, scratch, None, scratch), Tally()
    found = [answer.left_out or answer.text for answer in teacher.answers(questions, job, tally)]
    return found, tally.measured["teacher"]


PROMPTS = [f"{'say ' * (1 + number % 5)}{word}:" for number, word in enumerate(WORDS)]


def test_answers_come_in_order_and_do_not_depend_on_the_batch(random_model, tmp_path):
    found, measured = ask(random_model, PROMPTS, tmp_path / "a")
    assert len(set(found)) > 2 and measured == {"computed": 12}
    assert (
        ask(random_model, PROMPTS, tmp_path / "b", batch_rows=1)[0] == found == ask(random_model, PROMPTS, tmp_path / "c", batch_rows=5)[0]
    )


def test_an_answer_is_the_most_likely_one(random_model, tmp_path):
    """Against a loop that takes the most likely token, one row and one token at a time."""
    model, tokenizer = load_model(random_model), load_tokenizer(random_model)
    found, _ = ask(random_model, PROMPTS[:6], tmp_path / "a")
    for prompt, answer in zip(PROMPTS, found, strict=False):
        ids, new = tokenizer.encode(prompt), []
        while len(new) < 6 and tokenizer.eos not in new:
            with torch.inference_mode():
                new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        assert answer == tokenizer.decode(new).strip()


def test_a_killed_run_loses_no_finished_window(random_model, tmp_path, monkeypatch):
    monkeypatch.setattr(here, "_WINDOW", 4)
    whole, _ = ask(random_model, PROMPTS, tmp_path / "a")
    ask(random_model, PROMPTS[:8], tmp_path / "b")
    journal = tmp_path / "b" / "answers.jsonl"
    journal.write_bytes(journal.read_bytes() + b'[["half a li')
    assert ask(random_model, PROMPTS, tmp_path / "b") == (whole, {"resumed": 8, "computed": 4})
    assert ask(random_model, PROMPTS, tmp_path / "b") == (whole, {"resumed": 12})


def test_answers_that_do_not_end_follow_the_policy(random_model, tmp_path):
    prompts = ["say red:"]
    assert ask(random_model, prompts, tmp_path / "a", max_new_tokens=1, on_cut_off="drop")[0] == ["cut off"]
    kept, _ = ask(random_model, prompts, tmp_path / "b")
    assert len(kept[0]) > 2
    with pytest.raises(UserError, match="does not end within 1 tokens") as caught:
        ask(random_model, prompts, tmp_path / "c", max_new_tokens=1, on_cut_off="fail")
    assert caught.value.problems[0].where.line == 1
    letter = kept[0][-1]
    stopped, _ = ask(random_model, prompts, tmp_path / "d", stop=(letter,), on_cut_off="drop")
    assert stopped[0] == kept[0][: kept[0].index(letter)].strip() or stopped[0] == "empty answer"


def test_a_chat_template_surrounds_the_question(random_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in random_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}say {{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    )
    plain, _ = ask(random_model, ["say cat:"], tmp_path / "a")
    assert ask(folder, ["cat"], tmp_path / "b")[0] == plain
    assert ask(folder, ["say cat:"], tmp_path / "c", chat="never")[0] == plain


def test_a_prompt_that_leaves_no_room_and_a_folder_without_a_model_are_the_users_errors(random_model, tmp_path):
    with pytest.raises(UserError, match="exceed the model's 64 positions") as caught:
        ask(random_model, ["say red:", "say " * 70], tmp_path / "a")
    assert caught.value.problems[0].where.line == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        ask(tmp_path / "empty", ["a"], tmp_path / "b")


def test_an_encoder_decoder_model_answers(tmp_path, random_model):
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    prompts = ["say red:", "say say blue:", "one"]
    found, _ = ask(tmp_path / "t5", prompts, tmp_path / "a", max_new_tokens=4)
    assert found == ask(tmp_path / "t5", prompts, tmp_path / "b", max_new_tokens=4, batch_rows=1)[0]
    for prompt, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        new = [0]
        while len(new) < 5 and tokenizer.eos_token_id not in new[1:]:
            new.append(int(model(input_ids=ids, decoder_input_ids=torch.tensor([new])).logits[0, -1].argmax()))
        assert answer in (tokenizer.decode(new[1:], skip_special_tokens=True).strip(), "empty answer")


@pytest.mark.parametrize("values", [{}, {"path": "a", "id": "b"}, {"id": "b"}, {"path": "a", "revision": "0" * 40}])
def test_a_teacher_names_exactly_one_model(values):
    with pytest.raises(ValueError, match="path, or id with revision"):
        Local(**values)


def test_what_it_reads():
    assert Local(path="models/m").needs()[0].path == "models/m"
    assert Local(id="a/b", revision="0" * 40).needs()[0].model == ("a/b", "0" * 40)
    assert json.loads(Local(path="m").model_dump_json())["batch_rows"] == 16
