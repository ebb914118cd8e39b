"""Real tokenizers, trained here."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from stages.tokens.encoder import Encoder
from tests.stages.tokenize.templates import SPECIAL

EOS = "<|end|>"
BOS = "<|begin|>"
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


def chatting(tokenizer):
    """TOKENIZER with the special tokens of all the templates in these tests."""
    tokenizer.add_special_tokens([BOS, *SPECIAL])
    return tokenizer


def unigram():
    """What T5 and older Llamas have: pieces of words with a space in front, one put before the text too."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=[EOS, "<unk>"], unk_token="<unk>", initial_alphabet=list("#$%&!?:\n"), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def word_piece():
    """What BERT has: words and their continuations; white space is lost."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[EOS, "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


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


@pytest.fixture(scope="session")
def chat_files(tmp_path_factory):
    """A byte-level tokenizer that knows the special tokens of all templates."""
    config = {"eos_token": EOS, "bos_token": BOS}
    return save(chatting(byte_level()), tmp_path_factory.mktemp("chatting"), config)


@pytest.fixture(scope="session")
def chat_encoder(chat_files):
    return encoder_of(chat_files)
