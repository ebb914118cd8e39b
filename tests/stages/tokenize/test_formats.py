"""Formats: what rows become as text, turn by turn, and that chat templates render as transformers renders them."""

import pytest

from engine.core.errors import Location, UserError
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.chat.questions import Questions
from stages.rows.rows import parse_row
from tests.stages.tokenize.conftest import EOS
from tests.stages.tokenize.templates import CHATML, ENDS, TEMPLATES

WHERE = Location("rows.jsonl", 7)


def row(**found):
    return parse_row({"id": "a", "group": "a", **found}, WHERE)


def chat(*texts, system=None, **more):
    """A chat in which user and assistant take turns."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return row(messages=messages, **more)


def rendered(encoder, form, found):
    return form.renderer(encoder).render(found)


def whole(result):
    return "".join(turn.before + turn.answer + (turn.end or "") for turn in result.turns) + result.after


CHAT = chat("Hello?", "Hi. How?", "Well:\nso", " So it is.\n")
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
CALLS = row(
    messages=[
        {"role": "user", "content": "Warm?"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rom"}}}]},
        {"role": "tool", "content": "21"},
        {"role": "assistant", "content": "Yes."},
    ],
    tools=TOOLS,
)


def test_plain_text_is_what_the_row_says(encoder):
    found = rendered(encoder, Plain(), row(prompt="p", completion="c"))
    assert [tuple(turn) for turn in found.turns] == [("p", "c", None, True)] and found.after == ""
    assert rendered(encoder, Plain(), row(prompt="p", completion="c", system="s")).turns[0].before == "s\n\np"


def test_a_format_is_put_around_system_and_prompts(encoder):
    form = Plain(system="[{{ system }}] ", prompt="Q: {{prompt}}\nA:", between="\n---\n")
    found = rendered(encoder, form, chat("q{{ system }}", " a", "r", " b", "t", system="s"))
    assert [turn.before for turn in found.turns] == ["[s] Q: q{{ system }}\nA:", "\n---\nQ: r\nA:"]
    assert [turn.answer for turn in found.turns] == [" a", " b"] and found.after == "\n---\nQ: t\nA:"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            row(messages=[{"role": "user", "content": "q"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "a"}]),
            "messages[1]",
        ),
        (row(messages=[{"role": "assistant", "content": "a"}]), "messages[0] is of role assistant, and the plain format expects user"),
        (CALLS, "the plain format does not support tools"),
    ],
)
def test_the_plain_format_refuses_what_it_cannot_write(encoder, found, said):
    with pytest.raises(UserError) as caught:
        rendered(encoder, Plain(), found)
    assert said in caught.value.problems[0].what and caught.value.problems[0].where == WHERE and "chat" in caught.value.problems[0].hint


@pytest.mark.parametrize("field", ["system", "prompt"])
@pytest.mark.parametrize("text", ["nowhere", "{{ system }}{{ system }}{{ prompt }}{{ prompt }}"])
def test_a_format_says_once_where_the_text_goes(field, text):
    with pytest.raises(ValueError, match="exactly once"):
        Plain(**{field: text})


@pytest.mark.parametrize("style", TEMPLATES)
def test_the_turns_of_each_style(chat_encoder, style):
    found = rendered(chat_encoder, Chat(template=TEMPLATES[style]), CHAT)
    answers = [turn.answer.strip() for turn in found.turns]
    assert answers == ["Hi. How?", "So it is."]
    ends = {turn.end for turn in found.turns}
    # Bloom's chats end an answer before the next instruction, and not at all after the last: there the end is put.
    assert ends == {"mistral": {EOS}, "falcon": {None}, "bloom": {EOS, None}}.get(style, {ENDS.get(style)})
    assert all("So it is" not in turn.before and turn.before.strip() for turn in found.turns)


def reference(chat_files, template):
    from transformers import PreTrainedTokenizerFast

    path = str(chat_files["tokenizer/tokenizer.json"])
    return PreTrainedTokenizerFast(tokenizer_file=path, eos_token=EOS, bos_token="<|begin|>", chat_template=template)


@pytest.mark.parametrize("style", TEMPLATES)
@pytest.mark.parametrize("found", [CHAT, chat("<b>&é</b>", "x", system="Be kind."), chat("a", "b", "c", "d", "e"), CALLS])
def test_rendering_is_that_of_transformers(chat_files, chat_encoder, style, found):
    if (found is CALLS and style != "chatml") or (style == "mistral" and found.messages[0]["role"] == "system"):
        pytest.skip("the style has no such role")
    theirs = reference(chat_files, TEMPLATES[style])
    messages = [dict(message) for message in found.messages]
    tools = list(found.tools) or None
    ours = whole(rendered(chat_encoder, Chat(template=TEMPLATES[style]), found))
    assert ours == theirs.apply_chat_template(messages, tools=tools, tokenize=False)


@pytest.mark.parametrize("style", TEMPLATES)
def test_questions_are_those_of_transformers(chat_files, chat_encoder, style):
    theirs = reference(chat_files, TEMPLATES[style])
    found = chat("Hello?", "Hi.", "And so on?", "Yes.")
    (ids,) = Questions(Chat(template=TEMPLATES[style]), chat_encoder).ids([found])
    expected = theirs.apply_chat_template([dict(message) for message in found.question], add_generation_prompt=True)["input_ids"]
    # Earlier answers end with a token that these templates do not write: the model has learned to end that way.
    assert [token for token in ids if style != "falcon" or token != chat_encoder.eos_id] == expected


def test_what_ends_an_answer_stops_the_model(chat_encoder):
    stops = Questions(Chat(template=CHATML), chat_encoder).ends()
    assert [chat_encoder.tokenizer.id_to_token(stop) for stop in stops] == ["<|im_end|>", EOS]
    assert Questions(Plain(), chat_encoder).ends() == (chat_encoder.eos_id,)


def test_a_call_of_tools_is_an_answer(chat_encoder):
    found = rendered(chat_encoder, Chat(template=CHATML), CALLS)
    assert found.turns[0].answer == '<call>{"name": "weather", "arguments": {"city": "Rom"}}</call>' and found.turns[0].end == "<|im_end|>"
    assert "21" in found.turns[1].before and found.turns[1].answer == "Yes." and "Tools: {" in found.turns[0].before


def test_an_answer_that_brings_its_own_end_is_ended_once(chat_encoder):
    for template in (CHATML, TEMPLATES["marked"]):
        found = rendered(chat_encoder, Chat(template=template), chat("q", "a<|im_end|>"))
        assert (found.turns[0].answer, found.turns[0].end) == ("a", "<|im_end|>") and "<|im_end|>" not in found.after


def problem(encoder, template, found, **more):
    with pytest.raises(UserError) as caught:
        rendered(encoder, Chat(template=template, **more), found)
    return caught.value.problems[0]


def test_a_template_that_raises_is_the_users_error_at_the_row(chat_encoder):
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    found = problem(chat_encoder, TEMPLATES["gemma"], row(messages=messages))
    assert found.where == WHERE and "fails on this row: roles must alternate user/assistant" in found.what


def test_a_template_that_rewrites_earlier_turns_is_refused_at_the_row(chat_encoder):
    forgetful = CHATML.replace("{{ message.content }}", "{{ message.content if loop.last or message.role != 'user' else '...' }}")
    found = problem(chat_encoder, forgetful, chat("Hello?", "Hi.", "So?", "Yes."))
    assert found.where == WHERE and "renders differently once later messages follow" in found.what and "generation" in found.hint


def test_blocks_that_do_not_match_the_messages_are_refused(chat_encoder):
    twice = TEMPLATES["content-only"].replace(
        "{{ message.content }}{% endgeneration %}", "{{ message.content }}{% endgeneration %}{% generation %}b{% endgeneration %}"
    )
    assert "has 2 generation blocks" in problem(chat_encoder, twice, chat("q", "a")).what


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for %}", "is not a valid chat template"),
        ("{{ messages[0].content }}", "omits the assistant's messages"),
        ("{{ 1 / 0 }}", "division"),
    ],
)
def test_a_template_that_is_none_is_the_users_error(chat_encoder, template, said):
    assert said in problem(chat_encoder, template, CHAT).what


def test_a_template_asks_for_the_day_and_is_told_or_refused(chat_encoder):
    dated = "{{ strftime_now('%d %b %Y') }}" + CHATML
    assert 'format.date = "' in problem(chat_encoder, dated, CHAT).hint
    found = rendered(chat_encoder, Chat(template=dated, date="2024-07-26"), CHAT)
    assert found.turns[0].before.startswith("26 Jul 2024<|im_start|>")


def test_variables_of_the_spec_reach_the_template(chat_encoder):
    thinking = "{% if not enable_thinking | default(true) %}#{% endif %}" + CHATML
    assert whole(rendered(chat_encoder, Chat(template=thinking, variables={"enable_thinking": False}), CHAT)).startswith("#<|im_start|>")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ namespace(_a=1)['_a'] }}{% set n = namespace() %}{% set n._b = 1 %}",
        "{{ [1] | random }}",
    ],
)
def test_templates_are_sandboxed(chat_encoder, template):
    with pytest.raises(UserError):
        rendered(chat_encoder, Chat(template=template + CHATML), CHAT)


def test_without_a_template_there_is_no_chat(chat_encoder):
    with pytest.raises(UserError, match="no chat template") as caught:
        Chat().renderer(chat_encoder)
    assert "template_file" in caught.value.problems[0].hint
