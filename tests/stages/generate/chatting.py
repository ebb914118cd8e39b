"""What the tests of chat teachers share: a teacher of the test server, and questions put to it."""

from pathlib import Path

import pytest

from engine.core.errors import Location, UserError
from stages.generate.question import Question, Tally
from stages.generate.teachers.chat import Chat
from stages.process.job import Job

KEY = "sk-test-0123456789abcdef"


def chat(server, **changes):
    return Chat(**({"model": "m", "base_url": server.url, "api_key_env": "TEACHER_KEY", "timeout": 1.0} | changes))


def ask(teacher, prompts, system="", tally=None):
    """Text, or the reason why there is none, for each of PROMPTS."""
    questions = (Question(system, prompt, {}, Location("rows.jsonl", number)) for number, prompt in enumerate(prompts, 1))
    job = Job("generate-x", {}, Path("out"), None, Path("scratch"))
    return [answer.left_out or answer.text for answer in teacher.answers(questions, job, tally or Tally())]


def problem(teacher, prompts):
    with pytest.raises(UserError) as caught:
        ask(teacher, prompts)
    return caught.value.problems[0]


SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string", "minLength": 2}},
    "required": ["title"],
    "additionalProperties": False,
}
