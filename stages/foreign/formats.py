"""Formats of prompts and conversations that other tools know by name, in the templates of a spec.

Sources: the prompts of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), and the tokens of ChatML, Llama 3, Gemma, Phi, Vicuna and
Zephyr as their model cards give them; which name has which texts is in axolotl's `utils/chat_templates` and `prompters.py` and in
LLaMA-Factory's `data/template.py`. All are written anew here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
WITHOUT_INPUT = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


@dataclass(frozen=True)
class Chat:
    """How the messages of a conversation become text; `{content}`, `{system}`, `{bos}` and `{eos}` stand for what their names say."""

    user: str
    header: str
    """Text before an answer, which also prompts for one."""
    end: str
    """Text after an answer, beginning with the token that ends it."""
    system: str = ""
    start: str = ""
    default_system: str = ""
    """The system prompt of a conversation without one."""
    joined: bool = False
    """Whether the system prompt is part of the first user message."""
    trimmed: bool = False
    """Whether white space around contents is removed."""

    def template(self, default_system: str | None = None) -> str:
        """A Jinja template of a conversation; DEFAULT_SYSTEM replaces that of the format."""
        given = self.default_system if default_system is None else default_system
        content = "message['content'] | trim" if self.trimmed else "message['content']"
        names = {"content": f"({content})", "system": "system", "bos": "bos_token", "eos": "eos_token"}
        system, header = _expression(self.system, names), _expression(self.header, names)
        if self.joined:
            asked = f"(({system} if system and loop.first else '') + ({content}))"
            user = _expression(self.user, {**names, "content": asked})
        else:
            user = _expression(self.user, names)
        return "".join(
            (
                f"{{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else {_quoted(given)} %}}",
                f"{{{{ {_expression(self.start, names)} }}}}" if self.start else "",
                f"{{% if system %}}{{{{ {system} }}}}{{% endif %}}" if self.system and not self.joined else "",
                "{% for message in (messages[1:] if messages[0]['role'] == 'system' else messages) %}",
                f"{{% if message['role'] == 'assistant' %}}{{{{ {_expression(self.header + '{content}' + self.end, names)} }}}}",
                f"{{% else %}}{{{{ {user} }}}}{{% endif %}}{{% endfor %}}",
                f"{{% if add_generation_prompt %}}{{{{ {header} }}}}{{% endif %}}" if self.header else "",
            )
        )


def _quoted(text: str) -> str:
    """TEXT as a string of a Jinja expression."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _expression(text: str, names: Mapping[str, str]) -> str:
    """TEXT as a Jinja expression, with the expressions of NAMES in place of `{name}`."""
    parts = (names[part[1:-1]] if part[1:-1] in names else _quoted(part) for part in re.split(r"(\{[a-z]+\})", text) if part)
    return " ~ ".join(parts) or "''"


_CHATML = Chat(
    "<|im_start|>user\n{content}<|im_end|>\n", "<|im_start|>assistant\n", "<|im_end|>\n", "<|im_start|>system\n{system}<|im_end|>\n"
)
_LLAMA3 = Chat(
    "<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
    start="{bos}",
)
_GEMMA = Chat(
    "<start_of_turn>user\n{content}<end_of_turn>\n",
    "<start_of_turn>model\n",
    "<end_of_turn>\n",
    "{system}\n\n",
    start="{bos}",
    joined=True,
)
_PHI = Chat("<|user|>\n{content}<|end|>\n", "<|assistant|>\n", "<|end|>\n", "<|system|>\n{system}<|end|>\n")
_QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def _with(chat: Chat, **changes: object) -> Chat:
    return Chat(**{**vars(chat), **changes})


AXOLOTL: Mapping[str, Chat] = {
    "chatml": _CHATML,
    "llama3": _with(_LLAMA3, trimmed=True),
    "phi_3": _with(_PHI, start="{bos}"),
    "phi_35": _PHI,
    "gemma": _with(_GEMMA, trimmed=True),
    "alpaca": Chat("### Instruction:\n{content}\n\n", "### Response:\n", "{eos}\n\n", "{system}\n\n", start="{bos}"),
}
"""axolotl's chat templates that are written out here, by name."""

LLAMA_FACTORY: Mapping[str, Chat] = {
    "alpaca": Chat("### Instruction:\n{content}\n\n", "### Response:\n", "{eos}\n\n", "{system}", default_system=f"{WITHOUT_INPUT}\n\n"),
    "chatml": _CHATML,
    "default": Chat("Human: {content}{eos}\n", "Assistant:", "{eos}\n", "System: {system}{eos}\n"),
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "llama3": _LLAMA3,
    "mistral": Chat("[INST] {content}[/INST]", " ", "{eos}", "{system}\n\n", start="{bos}", joined=True),
    "phi": _PHI,
    "phi4": Chat(
        "<|im_start|>user<|im_sep|>{content}<|im_end|>",
        "<|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
        "<|im_start|>system<|im_sep|>{system}<|im_end|>",
    ),
    "qwen": _with(_CHATML, default_system=_QWEN),
    "qwen3_nothink": _CHATML,
    "vicuna": Chat("USER: {content} ", "ASSISTANT:", "{eos}", "{system}", default_system=_VICUNA),
    "zephyr": Chat(
        "<|user|>\n{content}{eos}",
        "<|assistant|>\n",
        "{eos}",
        "<|system|>\n{system}{eos}",
        default_system="You are Zephyr, a helpful assistant.",
    ),
}
"""LLaMA-Factory's templates that are written out here, by name."""

TURNS: Mapping[str, tuple[str, str, str]] = {
    "instruct": ("{s}\n\n", "### Instruction:\n{i}\n\n### Input:\n{x}\n\n### Response:\n", "### Instruction:\n{i}\n\n### Response:\n"),
    "chat": ("SYSTEM: {s}\n", "USER: {i}\n{x}\nASSISTANT:", "USER: {i}\nASSISTANT:"),
    "chatml": (
        "<|im_start|>system\n{s}<|im_end|>\n",
        "<|im_start|>user\n{i}\n{x}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n{i}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "phi": ("<|system|>\n{s}<|end|>\n", "<|user|>\n{i}<|end|>{x}<|assistant|>", "<|user|>\n{i}<|end|>\n<|assistant|>\n"),
}
"""axolotl's styles of single-turn prompts: the system prompt (`{s}`), a turn with an input, and one without; `{i}` is the
instruction, `{x}` the input."""
TEXTS_IN_PROMPTS = {"chatml": ("<|im_start|>", "<|im_end|>"), "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")}
"""Control tokens that a style writes into prompts."""


def prompt(style: str, fields: Mapping[str, str], systems: tuple[str, str]) -> str:
    """The Jinja template of a single-turn prompt over the columns FIELDS (`instruction`, `input`); SYSTEMS: with an input, and without."""
    system, long, short = TURNS[style]
    names = {"{i}": f"{{{{ {column(fields['instruction'])} }}}}", "{x}": f"{{{{ {column(fields.get('input', 'input'))} }}}}"}

    def whole(text: str, said: str) -> str:
        found = (system.replace("{s}", said) if said else "") + text
        for name, value in names.items():
            found = found.replace(name, value)
        return found

    if "input" not in fields:
        return whole(short, systems[1])
    asked = column(fields["input"])
    return f"{{% if {asked} %}}{whole(long, systems[0])}{{% else %}}{whole(short, systems[1])}{{% endif %}}"


def column(name: str) -> str:
    """A column in a Jinja expression, which names that are no identifiers need to be looked up for."""
    return name if name.isidentifier() else f"row[{_quoted(name)}]"
