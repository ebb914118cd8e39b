"""Tokenizers written in Python, which have no tokenizer.json: opened through transformers, asked as the tokenizers library is asked."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.core.errors import UserError

_PROBE = "a"


class Encoding(NamedTuple):
    """The ids of one text."""

    ids: list[int]


class SlowTokenizer:
    """A tokenizer class of transformers; no remote code, nothing but the given files."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._tokenizer = _opened(files)

    @property
    def added(self) -> tuple[str, ...]:
        """The tokens that are found in a text before anything else happens to it."""
        return tuple(self._tokenizer.get_added_vocab())

    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the tokenizer puts in front of a text and behind it."""
        bare = self.encode(_PROBE).ids
        whole = self._tokenizer.encode(_PROBE, add_special_tokens=True)
        start = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        return tuple(whole[:start]), tuple(whole[start + len(bare) :])

    def encode(self, text: str, add_special_tokens: bool = False) -> Encoding:
        """The ids of TEXT."""
        return Encoding(list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens)))

    def encode_batch_fast(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[Encoding]:
        """The ids of each text."""
        return [self.encode(text, add_special_tokens) for text in texts]

    def decode_batch(self, rows: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        """The text of each row of ids, as it is, without tidying."""
        return [
            self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False) for ids in rows
        ]

    def token_to_id(self, token: str) -> int | None:
        """The id of a token; None where it is none."""
        return self.get_vocab().get(token)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Every token with its id."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary


def _opened(files: Mapping[str, Path]) -> Any:
    from transformers import AutoTokenizer

    folder = next(iter(files.values())).parent
    # Copied aside, so that no file of the folder that is not named has a say.
    with tempfile.TemporaryDirectory() as aside:
        for name, path in files.items():
            shutil.copyfile(path, Path(aside) / name)
        try:
            return AutoTokenizer.from_pretrained(aside, use_fast=False, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # each class of transformers raises what it likes
            lines = str(error).strip().splitlines() or [type(error).__name__]
            hint = f"name all its files in model.tokenizer_files; these were given: {', '.join(files)}"
            raise UserError(f"the tokenizer in {folder} cannot be opened: {lines[0]}", hint=hint) from None
