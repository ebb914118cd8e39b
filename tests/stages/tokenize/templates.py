"""Chat templates in the styles of well-known models, and the special tokens of each; written for these tests."""

CHATML = """\
{%- if tools %}{{ '<|im_start|>system\\nTools: ' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.tool_calls %}{% for call in message.tool_calls %}{{ '<call>' + (call.function | tojson) + '</call>' }}{% endfor %}
{%- else %}{{ message.content }}{% endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# As training templates are written: the block begins a line too early, and ends a line too late.
MARKED = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role }}
{%- if message.role == 'assistant' %}{% generation %}{{ '\\n' + message.content + '<|im_end|>\\n' }}{% endgeneration %}
{%- else %}{{ '\\n' + message.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# The block holds the content alone: a mask made of it would never learn to stop.
CONTENT_ONLY = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

# The system message becomes part of the first user message; roles have other names; an odd order is refused.
GEMMA = """\
{{- bos_token }}
{%- set offset = 0 %}{% set first = '' %}
{%- if messages[0].role == 'system' %}{% set first = messages[0].content + '\\n\\n' %}{% set offset = 1 %}{% endif %}
{%- for message in messages[offset:] %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
{{- (first if loop.first else '') + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

# A space before the answer, the tokenizer's own end behind it, and no generation prompt at all.
MISTRAL = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}
{%- elif message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}
{%- else %}{{ raise_exception('only user and assistant roles are supported') }}{% endif %}
{%- endfor %}"""

# No special token anywhere: nothing tells where an answer ends.
FALCON = """\
{%- for message in messages %}
{%- if not loop.first %}{{ '\\n' }}{% endif %}
{{- message.role | capitalize + ': ' + message.content | trim }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"""

# Bloom's way of chats: the end-of-sequence token before each instruction, and none behind the last answer.
BLOOM = """\
{%- for message in messages %}
{%- if message.role == 'user' %}{{ ('' if loop.first else eos_token) + '\\n\\n### Human: ' + message.content }}
{%- else %}{{ '\\n\\n### Assistant:' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '\\n\\n### Assistant:' }}{% endif %}"""

TEMPLATES = {
    "chatml": CHATML,
    "marked": MARKED,
    "content-only": CONTENT_ONLY,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "falcon": FALCON,
    "bloom": BLOOM,
}

SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
]

ENDS = {
    "chatml": "<|im_end|>",
    "marked": "<|im_end|>",
    "content-only": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
}
"""What ends a turn; elsewhere it is the tokenizer's end-of-sequence token."""
