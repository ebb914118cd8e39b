"""Models with an encoder answer and are measured as those without: T5 against a plain loop."""

import json

import pytest
import torch

from engine.core.errors import UserError
from stages.chat.questions import Questions
from stages.initialize import Parameters as Made
from stages.initialize.architectures import T5
from stages.initialize.body import run as initialize
from stages.initialize.tokenizers import Tokenizer
from stages.models.folders import load_model, load_tokenizer
from stages.predict import Parameters, TaskPrediction
from stages.predict.body import run
from stages.predict.exam import Reader
from tests.stages.initialize.tiny import make_job, texts, write_lines


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    job = make_job(folder, {"rows/words": write_lines(folder / "rows.jsonl", texts())})
    architecture = T5(hidden_size=32, layers=1, heads=2, max_length=64)
    initialize(Made(architecture=architecture, tokenizer=Tokenizer(vocab_size=300), seed=3), job)
    return job.output


def test_answers_and_likelihoods_are_those_of_a_plain_loop(tmp_path, model):
    found = []
    for size in (1, 64):
        test = write_lines(tmp_path / "test.jsonl", texts(6))
        job = make_job(tmp_path / str(size), {"model": model, "test/words": test})
        tasks = {"words": TaskPrediction(max_new_tokens=5)}
        run(Parameters(tasks=tasks, likelihood=True, encoder_decoder=True, threads=1, batch_rows=size), job)
        found.append([json.loads(line) for line in (job.output / "predictions-words.jsonl").read_text().splitlines()])
    assert [row["answer"] for row in found[0]] == [row["answer"] for row in found[1]]
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    for row in found[1]:
        source = [*tokenizer.encode(row["prompt"]), *(tokenizer.encoder.suffix or (tokenizer.eos,))]
        target = [*tokenizer.encode(row["reference"]), tokenizer.eos]
        with torch.no_grad():
            loss = float(loaded(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss)
            ids = [loaded.config.decoder_start_token_id]
            while len(ids) < 6 and ids[-1] != tokenizer.eos:
                logits = loaded(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([ids]), use_cache=False).logits
                ids.append(int(logits[0, -1].argmax()))
        assert row["loss"] / row["loss_tokens"] == pytest.approx(loss, abs=1e-4) and row["loss_tokens"] == len(target)
        assert row["answer"] == tokenizer.decode(ids[1:])


@pytest.mark.parametrize(("encoder_decoder", "kept"), [(True, 2), (False, 0)])
def test_question_and_answer_each_have_all_the_positions(tmp_path, model, encoder_decoder, kept):
    asked = {"words": TaskPrediction(max_new_tokens=40)}
    parameters = Parameters(tasks=asked, likelihood=True, encoder_decoder=encoder_decoder, over_length="drop", rows=None)
    asking = Questions(parameters.format, load_tokenizer(model).encoder, encoder_decoder=encoder_decoder)
    rows = write_lines(tmp_path / "test.jsonl", [*texts(2), {"id": "long", "prompt": "say one " * 60, "completion": "one"}])
    if not kept:
        with pytest.raises(UserError, match="left out 3 for over length"):
            Reader(parameters, asking, 40).read("words", {"test": rows})
        return
    found = Reader(parameters, asking, 40).read("words", {"test": rows}).counts()
    assert (found["rows_out"], found["truncated"], found["left_out"]) == (kept, 0, {"over length": 1})
    assert "references_cut" not in found


def test_relative_positions_have_no_end(tmp_path, model):
    rows = write_lines(tmp_path / "test.jsonl", [{"id": "long", "prompt": "say one two " * 100, "completion": "one"}])
    asked = {"words": TaskPrediction(max_new_tokens=2)}
    found = run(Parameters(tasks=asked, encoder_decoder=True, threads=1), make_job(tmp_path, {"model": model, "test/words": rows}))["words"]
    assert (found["rows_out"], found["truncated"]) == (1, 0), "the model was made for 64 tokens, and reads more"
