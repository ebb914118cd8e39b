"""Calls of tools over several turns through Qwen 3's own template, from rows to a metric: tokens, a training, questions, answers."""

import json
import shutil

import numpy as np
import pytest
import torch

from stages.chat.formats.chat import Chat
from stages.evaluate.metrics import ExactMatch, ToolCalls
from stages.models.folders import load_model, save_model
from stages.predict import Parameters, TaskPrediction
from stages.predict.body import run
from stages.rows.predictions import read_predictions
from stages.tokenize.masks.assistant import Assistant
from tests.stages.evaluate.made import values
from tests.stages.initialize.tiny import make_job, write_lines
from tests.stages.tokenize.published import SHARED
from tests.stages.tokenize.test_whole_messages import ASK, RESULT, SAY, real, row, tokenization

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.exists(), reason="the tokenizers do not lie beside the repository"),
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}}}]
THOUGHT = {"reasoning_content": "I must look."}


def calling(city, **more):
    function = {"name": "weather", "arguments": json.dumps({"city": city, "days": 1})}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}], **more}


CONVERSATIONS = [
    # A call with reasoning, then an answer, then another question: Qwen's template drops the first reasoning there.
    [ASK, calling("Oslo", **THOUGHT), RESULT, SAY, {"role": "user", "content": "And Rome?"}, calling("Rome", **THOUGHT)],
    [{"role": "user", "content": "Paris?"}, calling("Paris", **THOUGHT)],
    [{"role": "user", "content": "Paris?"}, calling("Paris", **THOUGHT), RESULT, {"role": "assistant", "content": "Warm."}],
]


def trained(folder):
    """A tiny Qwen with its own tokenizer that has learnt the conversations by heart."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    encoder = real("qwen3")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen3Config(vocab_size=encoder.size(), head_dim=32, max_position_embeddings=1024, tie_word_embeddings=False, **sizes)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHARED / "qwen3" / name, folder / name)
    step, rows = tokenization(encoder, mask=Assistant(unroll="auto")), []
    for ids, supervised, lengths, _ in step.parts([row(*messages, tools=TOOLS) for messages in CONVERSATIONS]):
        edges = np.cumsum(lengths)[:-1]
        rows += list(zip(np.split(ids, edges), np.split(supervised, edges), strict=True))
    assert step.counts.metrics()["unrolled"] == {"conversations": 1, "rows": 3} and len(rows) == 5
    model = load_model(folder)
    # The vocabulary is large: only the rows of the head whose tokens are used are trained, the others say 0.
    used, places = np.unique(np.concatenate([ids for ids, _ in rows]), return_inverse=True)
    places = np.split(places, np.cumsum([len(ids) for ids, _ in rows])[:-1])
    head = torch.nn.Parameter(model.lm_head.weight[torch.tensor(used)].detach().clone())
    model.lm_head.weight.requires_grad_(False).zero_()
    model.model.embed_tokens.weight.requires_grad_(False)
    optimizer = torch.optim.AdamW([head, *(one for one in model.parameters() if one.requires_grad)], lr=3e-3)
    for _ in range(150):
        for (ids, supervised), targets in zip(rows, places, strict=True):
            learned = torch.tensor(np.flatnonzero(supervised))
            states = model.model(input_ids=torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0, learned - 1]
            torch.nn.functional.cross_entropy(states @ head.T, torch.tensor(targets)[learned]).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.lm_head.weight[torch.tensor(used)] = head.detach()
    save_model(model, folder)
    return folder


def test_a_model_that_has_learnt_its_calls_is_found_to_call(tmp_path):
    model = trained(tmp_path / "model")
    rows = [{"id": str(n), "group": "g", "messages": messages, "tools": TOOLS} for n, messages in enumerate(CONVERSATIONS)]
    # The same call, its arguments in another order, as an object.
    rows[1] = json.loads(json.dumps(rows[1]))
    rows[1]["messages"][-1]["tool_calls"][0]["function"]["arguments"] = {"days": 1, "city": "Paris"}
    job = make_job(tmp_path / "job", {"model": model, "test/calls": write_lines(tmp_path / "test.jsonl", rows)})
    run(Parameters(tasks={"calls": TaskPrediction(max_new_tokens=80)}, format=Chat(), threads=1), job)
    found = read_predictions(job.output / "predictions-calls.jsonl", "calls")
    assert [one.reference_calls for one in found] == [
        [{"name": "weather", "arguments": {"city": "Rome", "days": 1}}],
        [{"name": "weather", "arguments": {"city": "Paris", "days": 1}}],
        [],
    ]
    assert [one.reasoning and "I must look." in one.reasoning for one in found[:2]] == [True, True]
    assert values(ToolCalls(), found) == {"tool_calls": 1.0, "tool_names": 1.0}
    # As text the second is another one; the third answers, and calls nothing.
    assert values(ExactMatch(), found) == {"exact_match": pytest.approx(2 / 3)} and found[2].answer == "Warm." and found[2].calls == []
