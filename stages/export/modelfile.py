"""The Modelfile with which Ollama runs a GGUF file: its template as a Go template, and the end tokens.

Ollama does not run Jinja: it recognises some chat templates, and for others sends the bare prompt. So the chat template is taken apart into
the texts around each message, written as a Go template, and put together again for every asked row; if one is rendered otherwise, there is
no Modelfile. Syntax: https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.errors import Location, UserError
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.chat.templates import ChatTemplate
from stages.export.asked import Question
from stages.export.material import Material

FILE = "Modelfile"
_SYSTEM, _USER, _ANSWER = "Sprobe", "Uprobe", "Aprobe"


@dataclass(frozen=True)
class Texts:
    """What a chat template writes around messages."""

    start: str
    """Before the first message, whichever it is."""
    without_system: str
    """Before the first message, if it is not a system message."""
    system: tuple[str, str]
    user: tuple[str, str]
    answer: tuple[str, str]
    prompt: str
    """Before the answer that is asked for."""

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """MESSAGES as Ollama renders them with the Go template."""
        around = {"system": self.system, "user": self.user, "assistant": self.answer}
        parts = [self.start, "" if messages[0]["role"] == "system" else self.without_system]
        parts += [str(message["content"]).join(around[message["role"]]) for message in messages]
        return "".join(parts) + self.prompt

    def go(self) -> str:
        """The Go template."""
        roles = (("system", self.system), ("user", self.user), ("assistant", self.answer))
        cases = [f'if eq .Role "{role}" }}}}{_literal(a)}{{{{ .Content }}}}{_literal(b)}' for role, (a, b) in roles]
        default = f"{{{{ if not .System }}}}{_literal(self.without_system)}{{{{ end }}}}" if self.without_system else ""
        loop = "{{ range .Messages }}{{ " + "{{ else ".join(cases) + "{{ end }}{{ end }}"
        return f"{_literal(self.start)}{default}{loop}{_literal(self.prompt)}"


def write_modelfile(material: Material, file: str, adapter: str | None = None) -> None:
    """Write the Modelfile for the GGUF FILE, with ADAPTER on it if given; without one if Ollama cannot render the rows, said on stderr."""
    template = _template(material)
    if template is None:
        print("Modelfile: left out, since Ollama's templates cannot render the asked rows as the training did", file=sys.stderr)
        return
    lines = [f"FROM ./{file}", *([f"ADAPTER ./{adapter}"] if adapter else []), f'TEMPLATE """{template}"""']
    lines += [
        f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in material.encoder.decode([[end] for end in material.ends])
    ]
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    (material.output / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _template(material: Material) -> str | None:
    if isinstance(material.form, Plain):
        return _of_plain(material.form)
    texts = _texts(material)
    return texts.go() if texts and all(_alike(texts, question) for question in material.questions) else None


def _of_plain(plain: Plain) -> str:
    """The Go template of a plain format."""
    around = {}
    for name in ("system", "prompt"):
        around[name] = re.split(r"\{\{\s*" + name + r"\s*\}\}", getattr(plain, name))
    system, prompt = (
        f"{_literal(a)}{{{{ .{name} }}}}{_literal(b)}" for name, (a, b) in zip(("System", "Prompt"), around.values(), strict=True)
    )
    return f"{{{{ if .System }}}}{system}{{{{ end }}}}{prompt}"


def _alike(texts: Texts, question: Question) -> bool:
    """Whether TEXTS renders QUESTION as the chat template did."""
    if question.chat is None:
        return True
    known = all(message["role"] in ("system", "user", "assistant") and "tool_calls" not in message for message in question.chat.messages)
    return known and not question.chat.tools and texts.render(question.chat.messages) == question.text


def _texts(material: Material) -> Texts | None:
    """The texts around messages in the chat template; None if it writes them otherwise than one after the other."""
    assert isinstance(material.form, Chat) and material.taught.template is not None
    template = ChatTemplate(material.taught.template, "the chat template", material.encoder.names, material.form.date)
    user, said, system = ({"role": r, "content": c} for r, c in (("user", _USER), ("assistant", _ANSWER), ("system", _SYSTEM)))

    def rendered(*messages: Mapping[str, str], prompt: bool = True) -> str:
        return template.render(messages, (), Location("the chat template"), prompt)

    try:
        alone, open_end = rendered(user), rendered(user, prompt=False)
        with_system, again = rendered(system, user), rendered(user, said, user)
    except UserError:
        return None
    prompt = alone.removeprefix(open_end) if alone.startswith(open_end) else None
    if prompt is None or any(
        one.count(word) != count for one, word, count in ((alone, _USER, 1), (with_system, _SYSTEM, 1), (again, _ANSWER, 1))
    ):
        return None
    # The text before a user's message is seen between an answer and the next question, with the text after the answer.
    head, after_user = open_end.split(_USER)
    between = again[len(open_end) : again.rindex(_USER)]
    before_answer, after_answer_and_user = between.split(_ANSWER)
    before_system, rest = with_system.split(_SYSTEM)
    after_system_and_user = rest[: rest.rindex(_USER)]
    before_user = _common_end(head, after_answer_and_user, after_system_and_user)
    if before_user.startswith(after_user):
        # What ends every message would else stand before each question.
        before_user = before_user[len(after_user) :]
    without_system = head.removesuffix(before_user)
    start = _common_end(before_system[::-1], without_system[::-1])[::-1]
    return Texts(
        start,
        without_system.removeprefix(start),
        (before_system.removeprefix(start), after_system_and_user.removesuffix(before_user)),
        (before_user, after_user),
        (before_answer, after_answer_and_user.removesuffix(before_user)),
        prompt,
    )


def _common_end(*texts: str) -> str:
    """The longest text with which all TEXTS end."""
    size = 0
    while all(len(text) > size for text in texts) and len({text[-size - 1] for text in texts}) == 1:
        size += 1
    return texts[0][len(texts[0]) - size :]


def _literal(text: str) -> str:
    """TEXT as a Go template's literal; empty for an empty text."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
