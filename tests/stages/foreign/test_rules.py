"""The written rules give the labels of the tools' own code: axolotl 0.18.0, LLaMA-Factory 0.9.5 and TRL 1.16.0, recorded once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from stages.foreign import axolotl, llamafactory, own_code, trl
from stages.foreign.labels import Dropped, Labelled, Made, NoRule, Oddities, difference, end_is_learned

HERE = Path(__file__).parent
RECORDED: list[dict[str, Any]] = json.loads((HERE / "recorded.json").read_text("utf-8"))
LABEL = {"axolotl": axolotl.label, "llamafactory": llamafactory.label, "trl": trl.label}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat template of the tokenizer with which TRL was recorded."""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(HERE / "tokenizer")


def as_recorded(made: Made) -> list[list[list[int]]] | None:
    if isinstance(made, Dropped):
        return None
    return [[row.ids, [one if learned else -100 for one, learned in zip(row.ids, row.learned, strict=True)]] for row in made]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['tool']}: {case['name']}")
def test_the_rules_give_the_labels_of_the_tools_own_code(case, tokenizer):
    tokenizer.chat_template = CHAT if case["tool"] == "trl" else None
    for row, answer in zip(case["rows"], case["answers"], strict=True):
        assert as_recorded(LABEL[case["tool"]](row, case["config"], case["dataset"], tokenizer)) == answer


def own_code_of_trl(config: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
    request = {"tool": "trl", "config": config, "dataset": {}, "tokenizer": str(HERE / "tokenizer"), "rows": rows}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, own_code.__file__]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_trl_itself_gives_the_recorded_labels():
    (case,) = [case for case in RECORDED if (case["tool"], case["name"]) == ("trl", "pairs of texts")]
    assert own_code_of_trl(case["config"], case["rows"]) == case["answers"]


@pytest.mark.slow
def test_trl_itself_prepares_both_answers_of_a_pair_and_leaves_out_pairs_whose_prompts_fill_the_length(tokenizer):
    pairs = [
        {"prompt": "Hi", "chosen": " you", "rejected": " me"},
        {"prompt": "A long question. " * 9, "chosen": " Yes.", "rejected": " No."},
    ]
    (chosen, rejected), left_out = own_code_of_trl({"max_length": 12}, pairs)
    assert left_out is None
    for (ids, labels), text in ((chosen, " you"), (rejected, " me")):
        assert tokenizer.decode([one for one in labels if one != -100]) == text + tokenizer.eos_token
        assert [one for one, label in zip(ids, labels, strict=True) if label == -100] == tokenizer("Hi")["input_ids"]


def test_recordings_cover_rows_that_are_dropped_and_split_and_those_without_anything_learned():
    answers = [answer for case in RECORDED for answer in case["answers"]]
    assert None in answers and any(answer and len(answer) > 1 for answer in answers)
    assert any(answer and all(label == -100 for _, labels in answer for label in labels) for answer in answers)


def test_a_cut_answer_of_llamafactory_has_no_learned_end(tokenizer):
    row = {"instruction": "Count.", "input": "", "output": "One, two. " * 60}
    (made,) = llamafactory.label(row, {"cutoff_len": 64, "template": "chatml"}, {}, tokenizer)
    assert made.cut and len(made.ids) == 64
    assert not end_is_learned(made, [tokenizer.convert_tokens_to_ids("<|im_end|>")])


def test_trl_learns_every_token_of_messages_and_only_the_completion_of_a_pair(tokenizer):
    pair = {"prompt": "2 + 2 =", "completion": " 4"}
    (made,) = trl.label(pair, {}, {}, tokenizer)
    asked = len(tokenizer("2 + 2 =")["input_ids"])
    assert made.learned == [False] * asked + [True] * (len(made.ids) - asked) and made.ids[-1] == tokenizer.eos_token_id
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (made,) = trl.label({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, {}, {}, tokenizer)
    assert all(made.learned)
    asked = len(tokenizer("2 + 2 =")["input_ids"])
    (cut,) = trl.label(pair, {"max_length": asked + 1}, {}, tokenizer)
    assert cut.cut and cut.learned == [False] * asked + [True]
    assert trl.label(pair, {"max_length": asked}, {}, tokenizer) == Dropped("nothing is learned once it is cut")


def test_a_template_that_is_not_written_down_is_named(tokenizer):
    with pytest.raises(NoRule, match="template cohere is not written out"):
        llamafactory.label({"instruction": "a", "output": "b"}, {"template": "cohere"}, {}, tokenizer)


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ([Labelled([1, 2, 3], [False, True, True])], [Labelled([1, 2, 3], [False, True, True])], ""),
        ([Labelled([1, 2, 3], [False, True, True])], [Labelled([1, 2, 3], [False, True, False])], 'learned only there: "3"'),
        ([Labelled([1, 2], [False, True])], [Labelled([1, 2, 3], [False, True, True])], 'more tokens at the end here: "3" (learned)'),
        ([Labelled([1, 9, 3], [False, True, True])], [Labelled([1, 2, 3], [False] * 3)], 'other tokens from 1 on: "9 3" there, "2 3" here'),
        (
            [Labelled([1, 2, 3], [False, True, True], True)],
            [Labelled([1, 2, 9], [False, True, True], True)],
            "cut there and here; there the answer has lost its end",
        ),
        (Dropped("too long"), [Labelled([1], [True])], "left out there (too long)"),
        (Dropped("too long"), Dropped("empty"), ""),
        ([Labelled([1], [True])] * 2, [Labelled([1], [True])], "2 rows there, 1 here"),
        ([Labelled([1], [True])] * 2, [Labelled([2], [True])] * 2, "2 pieces, which begin elsewhere"),
    ],
)
def test_a_difference_is_said_in_words_that_rows_share(theirs, ours, said):
    assert difference(theirs, ours, lambda ids: " ".join(map(str, ids)), [9]) == said


def test_what_is_seldom_meant_is_counted():
    found = Oddities()
    found.add([Labelled([1, 1, 5, 9], [False, False, True, True])], [9], 1)
    found.add([Labelled([1, 5, 6], [False, True, True], cut=True)], [9], 1)
    found.add([Labelled([1, 5, 6], [False] * 3)], [9], 1)
    found.add(Dropped("longer"), [9], 1)
    assert found.as_data() == {
        "rows": 4,
        "dropped": 1,
        "cut": 1,
        "nothing_learned": 1,
        "end_not_learned": 1,
        "bos_doubled": 1,
        "reasons": {"longer": 1},
    }
