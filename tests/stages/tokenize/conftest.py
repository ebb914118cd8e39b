"""Real tokenizers, trained here."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from stages.common.encoder import Encoder

EOS = "<|end|>"
TEXT = ["The quick brown fox jumps over the lazy dog. " * 3, "Ünïcode, 😀 and 1234567890", "def f(x):\n\treturn x\n"] * 5


def trained(tokenizer, alphabet=()):
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[EOS, "<unk>"], initial_alphabet=list(alphabet), show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def byte_level():
    """What GPT-2 and Falcon have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()))


def normalizing():
    """What BERT-like models have: lower case, white space and unknown characters are lost."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return trained(tokenizer)


def save(tokenizer, folder, config=None):
    """The two files of a tokenizer, as inputs of a job."""
    paths = {f"tokenizer/{name}": folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
    tokenizer.save(str(paths["tokenizer/tokenizer.json"]))
    paths["tokenizer/tokenizer_config.json"].write_text(json.dumps({"eos_token": EOS} if config is None else config), "utf-8")
    return paths


def opened(tokenizer, folder, config=None):
    return encoder_of(save(tokenizer, folder, config))


def encoder_of(paths):
    """The tokenizer in the inputs of a job."""
    return Encoder.open({name.removeprefix("tokenizer/"): path for name, path in paths.items()})


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return save(byte_level(), tmp_path_factory.mktemp("byte_level"))


@pytest.fixture(scope="session")
def encoder(files):
    return encoder_of(files)
