"""What a user can get wrong about tokens: each says what, where and what to do, whatever the step in which it shows."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.end_to_end.conftest import Place
from tests.end_to_end.one_process import errors_of

pytestmark = pytest.mark.slow

SPEC = """\
[experiment]
name = "{name}"

[model]
path = "{model}"

[tasks.chats]
source = {{ kind = "jsonl", path = "chats.jsonl" }}
layout = "messages"

[tasks.disordered]
source = {{ kind = "jsonl", path = "disordered.jsonl" }}
layout = "messages"

[tokenization]
name = "{name}"
{tokenization}

[mixture]
tasks = ["{task}"]

[training]
method = "lora"
"""
RAISES = "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}{{ messages | map(attribute='content') | join }}"
BAD = {
    "mute": {"model": "mute"},
    "raises": {"tokenization": f'format = {{ kind = \'chat\', template = """{RAISES}""" }}'},
    "broken": {"tokenization": "format = { kind = 'chat', template_file = 'broken.jinja' }"},
    "endless": {"tokenization": "mask = 'delimited'"},
    "long": {"tokenization": "max_length = 9"},
    "disordered": {"task": "disordered"},
}
EXPECTED = {
    "tokenize-chats-mute-mute": ("this tokenizer has no eos_token", "--> mute/tokenizer_config.json", "the model never learns to stop"),
    "tokenize-chats-model-raises": ("fails on this row: too long", "--> artifacts/split-chats/train.jsonl:3", "fix the row"),
    "tokenize-chats-model-broken": ("broken.jinja is not a valid chat template", "--> broken.jinja:2"),
    "tokenize-chats-model-endless": ("has no bos_token", "--> specs/endless.toml:1", "use the mask"),
    "tokenize-chats-model-long": (
        "tokens, more than max_length = 9",
        "--> artifacts/split-chats/train.jsonl:1",
        "increase tokenization.max_length",
    ),
    "tokenize-disordered-model-disordered": (
        "roles out of order: messages[1] is of role user, and the plain format expects assistant",
        "--> artifacts/split-disordered/train.jsonl:",
        "use a chat template",
    ),
}


def message(number: int, content: str) -> dict[str, str]:
    return {"role": ("user", "assistant")[number % 2], "content": content}


def write_model(folder: Path, **config: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([], trainers.BpeTrainer(special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text("{}")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each step says of a workspace whose specs are all wrong, by the step's name."""
    place = Place(tmp_path_factory.mktemp("bad") / "workspace")
    place.root.mkdir()
    place.run("engine", "init", ".")
    (place.root / "specs/first.toml").unlink()
    write_model(place.root / "model", eos_token="<end>")
    write_model(place.root / "mute")
    chats = [[message(n, f"{row} {n} and more") for n in range(4 if row == 2 else 2)] for row in range(40)]
    place.write("chats.jsonl", "".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    disordered = [[message(0, f"{row}"), message(0, "again"), message(1, "answer")] for row in range(40)]
    place.write("disordered.jsonl", "".join(json.dumps({"messages": chat}) + "\n" for chat in disordered))
    place.write("broken.jinja", "{{ messages }}\n{% if %}\n")
    for name, more in BAD.items():
        place.write(f"specs/{name}.toml", SPEC.format(**{"name": name, "model": "model", "tokenization": "", "task": "chats"} | more))
    return errors_of(place, "generate", "split", "tokenize")


@pytest.mark.parametrize("step", EXPECTED)
def test_it_is_said_with_its_place(said: dict[str, str], step: str):
    for words in EXPECTED[step]:
        assert words in said[step], said[step]


def test_nothing_else_is_said(said: dict[str, str]):
    assert set(said) == set(EXPECTED)
