"""Chat templates in the styles of well-known models, tools and reasoning included where these know them; written for these tests.

They differ in what they take and what they lose: arguments as an object or as text, a null beside calls or none, reasoning kept, dropped
from earlier turns, or unknown.
"""

from pathlib import Path

SHARED = Path(__file__).parents[3] / "../shared/tokenizers"

_PROMPT = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

# Content, then calls in Hermes' way; reasoning is unknown.
HERMES = (
    """\
{%- if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}"""
    + _PROMPT
)

# The shortest there is: prints a null as Python does, knows no calls and no reasoning.
PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + _PROMPT

# The reasoning of every turn stays; a null is no content.
THINKING = (
    """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.reasoning_content %}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n' }}{% endif %}
{%- if m.content is not none %}{{ m.content }}{% endif %}
{%- for c in m.tool_calls or [] %}{{ '<call>' + c.function | tojson + '</call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}"""
    + _PROMPT
)

# Reads `thinking`, keeps it behind the last question alone; arguments are text.
FORGETFUL = (
    """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and m.thinking and loop.index0 > ns.last %}{{ '<|think|>' + m.thinking + '<|/think|>' }}{% endif %}
{{- m.content or '' }}
{%- for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + '(' + c.function.arguments + ')</call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}"""
    + _PROMPT
)

LLAMA2 = """\
{%- set first = '' %}{% set rest = messages %}
{%- if messages[0].role == 'system' %}
{%- set first = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}{% set rest = messages[1:] %}{% endif %}
{%- for m in rest %}
{%- if m.role == 'user' %}{{ bos_token + '[INST] ' + (first if loop.first else '') + m.content | trim + ' [/INST]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}
{%- else %}{{ raise_exception('only user and assistant') }}{% endif %}
{%- endfor %}"""

# One call a message, in a message of its own; arguments are printed one by one or as JSON.
LLAMA3 = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}
{%- elif 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set f = m.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + f.name + '", "parameters": ' + f.arguments | tojson + '}<|eot_id|>' }}
{%- else %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

# Calls as a list in JSON, with ids of nine characters or none.
MISTRAL = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}
{%- elif m.role == 'system' %}{{ '[INST] ' + m.content + '[/INST]' }}
{%- elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' + m.content + '[/TOOL_RESULTS]' }}
{%- elif m.tool_calls is defined and m.tool_calls %}
{{- '[TOOL_CALLS] [' }}{% for c in m.tool_calls %}
{%- if c.id is defined and c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}
{{- c.function | tojson }}{{ ', ' if not loop.last }}{% endfor %}{{ ']' + eos_token }}
{%- else %}{{ ' ' + m.content + eos_token }}{% endif %}
{%- endfor %}"""

GEMMA = """\
{{- bos_token }}
{%- set first = '' %}{% set rest = messages %}
{%- if messages[0].role == 'system' %}{% set first = messages[0].content + '\\n\\n' %}{% set rest = messages[1:] %}{% endif %}
{%- for m in rest %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (first if loop.first else '') + m.content | trim }}
{{- '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

PHI = """\
{%- for m in messages %}{{ '<|' + m.role + '|>' + (m.content if m.content is string else '') }}
{%- if m.tool_calls %}{{ '<|tool_call|>' + m.tool_calls | tojson + '<|/tool_call|>' }}{% endif %}
{{- '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""

ZEPHYR = """\
{%- for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

# Calls as actions in a block of JSON; `thinking` is a plan before them.
COMMAND_R = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ '<results>' + m.content + '</results>' }}
{%- else %}{{ '<|turn|><|' + m.role + '|>' }}
{%- if m.thinking %}{{ '<|plan|>' + m.thinking + '<|/plan|>' }}{% endif %}
{%- if m.tool_calls %}{{ 'Action: ```json\\n[' }}{% for c in m.tool_calls %}
{{- '{"tool_name": "' + c.function.name + '", "parameters": ' + c.function.arguments | tojson + '}' + (', ' if not loop.last else '') }}
{%- endfor %}{{ ']\\n```' }}{% endif %}
{{- m.content if m.content else '' }}{{ '<|/turn|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|turn|><|assistant|>' }}{% endif %}"""

# `content is none` decides that there are calls.
NULL_ONLY = (
    """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.content is none %}{% for c in m.tool_calls %}
{{- c.function.name + '\\n```json\\n' + c.function.arguments + '\\n```\\n' }}{% endfor %}
{%- else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"""
    + _PROMPT
)

GRANITE = """\
{%- for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' }}
{%- if m.tool_calls %}{{ '<|tool_call|>[' }}{% for c in m.tool_calls %}
{{- '{"name": "' + c.function.name + '", "arguments": {' }}
{%- for k, v in c.function.arguments.items() %}{{ '"' + k + '": ' + v | tojson + (', ' if not loop.last else '') }}{% endfor %}
{{- '}}' + (', ' if not loop.last else '') }}{% endfor %}{{ ']' }}
{%- elif m.reasoning %}{{ '<response_thought>' + m.reasoning + '</response_thought>' + m.content }}
{%- else %}{{ m.content }}{% endif %}{{ '<|end_of_text|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"""

# Each argument by itself, as GLM and Qwen's coders have it; values that are no text are printed as Python does.
BY_ARGUMENT = (
    """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.content %}{{ m.content }}{% endif %}
{%- for c in m.tool_calls or [] %}{{ '<function=' + c.function.name + '>\\n' }}
{%- for k, v in c.function.arguments.items() %}<parameter={{ k }}>{{ v }}</parameter>{% endfor %}{{ '</function>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}"""
    + _PROMPT
)

PUBLISHED = {
    "hermes": HERMES,
    "plain": PLAIN,
    "thinking": THINKING,
    "forgetful": FORGETFUL,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "phi": PHI,
    "zephyr": ZEPHYR,
    "command-r": COMMAND_R,
    "null-only": NULL_ONLY,
    "granite": GRANITE,
    "by-argument": BY_ARGUMENT,
}

REAL = ("qwen3", "deepseek_v3")
"""Tokenizers with their own templates, beside the repository."""
