"""Python tokenizers, which have no tokenizer.json: loaded through transformers, with the interface of the tokenizers library."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.core.errors import UserError

_PROBE = "a"


class Encoding(NamedTuple):
    """Token ids of one text."""

    ids: list[int]


class SlowTokenizer:
    """A tokenizer class of transformers, without remote code, restricted to the given files."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._tokenizer = _opened(files)

    @property
    def added(self) -> tuple[str, ...]:
        """Added tokens, which are matched in a text before tokenization."""
        return tuple(self._tokenizer.get_added_vocab())

    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that the tokenizer adds before and after a text."""
        bare = self.encode(_PROBE).ids
        whole = self._tokenizer.encode(_PROBE, add_special_tokens=True)
        start = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        return tuple(whole[:start]), tuple(whole[start + len(bare) :])

    def encode(self, text: str, add_special_tokens: bool = False) -> Encoding:
        """Token ids of TEXT."""
        return Encoding(list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens)))

    def encode_batch_fast(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[Encoding]:
        """Token ids of each text."""
        return [self.encode(text, add_special_tokens) for text in texts]

    def decode_batch(self, rows: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        """The text of each row of ids, without clean-up of spaces."""
        return [
            self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False) for ids in rows
        ]

    def token_to_id(self, token: str) -> int | None:
        """Id of a token; None if it is unknown."""
        return self.get_vocab().get(token)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """All tokens with their ids."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary


def _opened(files: Mapping[str, Path]) -> Any:
    from transformers import AutoTokenizer

    folder = next(iter(files.values())).parent
    # Copied to a temporary folder, so that other files of the folder have no effect.
    with tempfile.TemporaryDirectory() as aside:
        for name, path in files.items():
            shutil.copyfile(path, Path(aside) / name)
        try:
            return AutoTokenizer.from_pretrained(aside, use_fast=False, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # tokenizer classes of transformers raise exceptions of any type
            lines = str(error).strip().splitlines() or [type(error).__name__]
            hint = f"list all its files in model.tokenizer_files; listed are: {', '.join(files)}"
            raise UserError(f"cannot load the tokenizer in {folder}: {lines[0]}", hint=hint) from None
