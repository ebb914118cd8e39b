"""The same rows through TRL's SFTTrainer: the same ids and labels, or a difference that is named and has its reason."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from stages.chat.formats.chat import Chat
from stages.tokenize.masks.assistant import Assistant
from tests.stages.tokenize.conftest import BOS, EOS, byte_level, chatting, encoder_of, save
from tests.stages.tokenize.real_rows import fastchat, glaive, gsm8k, needs_data, oasst
from tests.stages.tokenize.templates import CHATML, MARKED
from tests.stages.tokenize.test_masks import tokenize

pytestmark = [needs_data, pytest.mark.slow]

# ChatML whose blocks hold just what a model says: the answer and its end.
EXACT = """\
{%- if tools %}{{ '<|im_start|>system\\nTools: ' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}
{%- if message.tool_calls %}{% for call in message.tool_calls %}{{ '<call>' + (call.function | tojson) + '</call>' }}{% endfor %}
{%- else %}{{ message.content }}{% endif %}
{{- '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LONG = 100_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save(chatting(byte_level()), tmp_path_factory.mktemp("trl"), {"eos_token": EOS, "bos_token": BOS})


@pytest.fixture(scope="module")
def encoder(files):
    return encoder_of(files)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, files):
    """What SFTTrainer makes of rows: ids and labels."""
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    tokenizer_file = str(files["tokenizer/tokenizer.json"])
    size = Tokenizer.from_file(tokenizer_file).get_vocab_size()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=8, n_layer=1, n_head=1, n_positions=64))

    def prepare(rows, template=None, **options):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=tokenizer_file, eos_token=EOS, bos_token=BOS, pad_token=EOS, chat_template=template
        )
        config = SFTConfig(
            output_dir=str(tmp_path_factory.mktemp("sft")), max_length=None, report_to="none", use_cpu=True, bf16=False, **options
        )
        trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]

    return prepare


def ours(folder, files, rows, **values):
    _, tokens = tokenize(folder, files, rows, max_length=LONG, **values)
    found = map(tokens.row, range(len(tokens)))
    return [(ids.tolist(), np.where(supervised, ids, -100).tolist()) for ids, supervised in found]


def learned(encoder, pairs):
    return [encoder.decode([[token for token in labels if token >= 0]])[0] for _, labels in pairs]


def test_prompts_and_completions_are_the_same(tmp_path, files, prepared):
    rows = gsm8k(200)
    assert ours(tmp_path, files, rows) == ours(tmp_path, files, rows, boundary="shift") == prepared(rows, completion_only_loss=True)


def test_where_a_token_is_shared_trl_learns_it_and_we_do_not(tmp_path, files, encoder, prepared):
    """TRL's completion begins where the ids of prompt and whole part, so that a token with characters of the prompt is learned.

    Ours belongs to the prompt: no character of a prompt is ever learned. The ids are the same.
    """
    rows = [{"prompt": f"{row['prompt'].strip()} A: ", "completion": f"the {row['completion']}"} for row in gsm8k(20)]
    theirs, shifted = prepared(rows, completion_only_loss=True), ours(tmp_path, files, rows, boundary="shift")
    assert [ids for ids, _ in shifted] == [ids for ids, _ in theirs]
    assert [f" {row['completion']}{EOS}" for row in rows] == learned(encoder, theirs)
    assert [row["completion"].removeprefix("the") + EOS for row in rows] == learned(encoder, shifted)


@pytest.mark.parametrize("rows", [fastchat, oasst])
def test_conversations_are_the_same_with_blocks_and_without(tmp_path, files, prepared, rows):
    found = rows(60)
    theirs = prepared(found, EXACT, assistant_only_loss=True)
    for template in (EXACT, CHATML):
        assert ours(tmp_path, files, found, format=Chat(template=template), mask=Assistant()) == theirs


def test_conversations_with_tools_are_the_same(tmp_path, files, prepared):
    found = glaive(60)
    # TRL takes tools as JSON, since a data set's columns cannot hold different objects; the same goes for the arguments of calls.
    as_text = [{**row, "tools": json.dumps(row["tools"])} for row in _with_text_arguments(found)]
    # As text, they are text for a template that takes text; one that takes objects would quote them once more, which we do not let it do.
    taking_text = [t.replace("(call.function | tojson)", "call.function.name + call.function.arguments") for t in (EXACT, CHATML)]
    theirs = prepared(as_text, taking_text[0], assistant_only_loss=True)
    for template in taking_text:
        assert ours(tmp_path, files, _with_text_arguments(found), format=Chat(template=template), mask=Assistant()) == theirs


def _with_text_arguments(rows):
    def call(message):
        return {
            "role": message["role"],
            "content": message["content"],
            "tool_calls": [_as_text(c) for c in message.get("tool_calls", [])] or None,
        }

    return [{**row, "messages": [call(message) for message in row["messages"]]} for row in rows]


def _as_text(call):
    function = call["function"]
    return {"type": "function", "function": {"name": function["name"], "arguments": json.dumps(function["arguments"])}}


def test_a_block_that_begins_too_early_and_ends_too_late(tmp_path, files, encoder, prepared):
    """TRL learns all of a block. A line break that the generation prompt gives, and one behind the end of the turn, are nothing that a
    model ever says: we learn neither. The ids are the same.
    """
    found = fastchat(30)
    theirs = prepared(found, MARKED, assistant_only_loss=True)
    made = ours(tmp_path, files, found, format=Chat(template=MARKED), mask=Assistant())
    assert [ids for ids, _ in made] == [ids for ids, _ in theirs]
    assert learned(encoder, theirs) == [text.replace("<|im_end|>", "<|im_end|>\n") for text in _with_line_breaks(found)]
    assert learned(encoder, made) == ["".join(f"{answer}<|im_end|>" for answer in answers) for answers in map(_answers, found)]


def _answers(row):
    return [message["content"] for message in row["messages"] if message["role"] == "assistant"]


def _with_line_breaks(rows):
    return ["".join(f"\n{answer}<|im_end|>" for answer in _answers(row)) for row in rows]


def test_the_last_answer_of_a_chat(tmp_path, files, encoder, prepared):
    """As prompt and completion TRL learns the line break behind the end of the last turn, too: it is all that follows the prompt."""
    found = oasst(40)
    pairs = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in found]
    theirs = prepared(pairs, CHATML, completion_only_loss=True)
    made = ours(tmp_path, files, found, format=Chat(template=CHATML))
    assert [ids for ids, _ in made] == [ids for ids, _ in theirs]
    assert [f"{text}\n" for text in learned(encoder, made)] == learned(encoder, theirs)
