"""What inspect says of a row is what the models themselves say, and what training would learn from."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import UserError
from stages.common.inspection import inspect
from stages.common.models import load_adapter, load_model, load_tokenizer
from stages.common.tokens import TokenWriter
from stages.train.methods import Lora
from tests.stages.initialize.tiny import make_model, texts


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, an adapter on it, and a token file whose completions are supervised."""
    root = tmp_path_factory.mktemp("inspect")
    model = make_model(root / "model", "llama", initializer_range=0.3)
    adapted = Lora(r=4).prepare(load_model(model))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    (root / "adapter").mkdir()
    Lora(r=4).save(adapted, root / "adapter")
    tokenizer = load_tokenizer(model)
    with TokenWriter(root / "train.safetensors") as writer:
        for row in texts(5):
            prompt, completion = tokenizer.encode(row["prompt"]), [*tokenizer.encode(row["completion"]), tokenizer.eos]
            mask = [0] * len(prompt) + [1] * len(completion)
            writer.write(np.array(prompt + completion, np.int32), np.array(mask, np.uint8))
    return {"model": str(model), "adapter": str(root / "adapter"), "tokens": str(root / "train.safetensors"), "threads": 1}


def test_every_position_is_there_with_its_text_and_its_mask(place):
    answer = inspect({**place, "row": 2})
    row, tokenizer = texts(5)[2], load_tokenizer(Path(place["model"]))
    assert "".join(p["token"] for p in answer["positions"]) == f"{row['prompt']}{row['completion']}<|endoftext|>"
    learned = [p["token"] for p in answer["positions"] if p["supervised"]]
    assert "".join(learned) == f"{row['completion']}<|endoftext|>" and answer["positions"][-1]["id"] == tokenizer.eos
    assert answer["rows"] == 5 and answer["positions"][0]["base"] is None and answer["positions"][0]["trained"] is None


def test_the_numbers_are_those_of_both_models(place):
    answer = inspect({**place, "row": 1})
    ids = torch.tensor([[p["id"] for p in answer["positions"]]])
    base = load_model(Path(place["model"]))
    for name, model in (("base", base), ("trained", load_adapter(load_model(Path(place["model"])), Path(place["adapter"])))):
        with torch.no_grad():
            shares = model(ids).logits[0].softmax(-1)
            labels = torch.where(torch.tensor([[p["supervised"] for p in answer["positions"]]]), ids, -100)
            loss = float(model(input_ids=ids, labels=labels).loss)
        assert answer["loss"][name] == pytest.approx(loss, abs=1e-4)
        for number, position in enumerate(answer["positions"][1:], 1):
            said = position[name]
            assert said["truth_probability"] == pytest.approx(float(shares[number - 1, ids[0, number]]), abs=1e-5)
            assert said["truth_loss"] == pytest.approx(-math.log(float(shares[number - 1, ids[0, number]])), abs=1e-3)
            assert said["says_probability"] == pytest.approx(float(shares[number - 1].max()), abs=1e-5)
            assert (said["truth_rank"] == 1) == (said["says_probability"] == said["truth_probability"])
    assert answer["loss"]["base"] != answer["loss"]["trained"]


def test_a_row_that_is_not_there(place):
    with pytest.raises(UserError, match="there is no row 5: this file has 5 rows"):
        inspect({**place, "row": 5})


def test_as_a_process_of_its_own(place):
    command = [sys.executable, "-m", "stages.common.inspection"]

    def ask(**values):
        given = json.dumps({**place, **values})
        return subprocess.run(
            command, input=given, capture_output=True, text=True, env=os.environ, cwd=Path(__file__).parents[3], check=False
        )

    done = ask(row=0)
    assert done.returncode == 0 and json.loads(done.stdout) == inspect({**place, "row": 0})
    refused = ask(row=0, model=place["model"] + "-gone")
    assert refused.returncode == 1 and refused.stderr.startswith("error: ") and "Traceback" not in refused.stderr and not refused.stdout
