"""Serving files in every folder of trained weights: tokenizer, chat template, end tokens, padding.

A folder contains everything that `AutoTokenizer` and `GenerationConfig` read, so a server renders prompts as in training and stops where
our evaluation stops.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stages.chat.taught import Taught
from stages.models.folders import copy_tokenizer, load_tokenizer, write_json
from stages.tokens.encoder import CONFIG, FAST, TEMPLATE, Encoder
from stages.tokens.ends import answer_ends, padding_of, write_generation_config

_UNSTABLE = (
    *("name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file"),
    *("transformers_version", "is_local", "local_files_only", "_commit_hash"),
)
"""Keys of tokenizer_config.json with paths of the machine that saved it, or versions."""


@dataclass(frozen=True)
class Serving:
    """Tokenizer, chat template and end tokens of a model, for its folder of weights."""

    model: Path
    """Folder of the trained model, or of the adapter's base."""
    tokenizer: Path
    """Folder of its tokenizer: the model's, or the vocabulary step's."""
    ends: tuple[int, ...]
    """Ids of the end tokens."""
    template: str | None
    encoder: Encoder

    @classmethod
    def of(cls, taught: Taught, model: Path, tokenizer: Path, adapters: Sequence[Path] = ()) -> Self:
        """The serving files for MODEL with ADAPTERS; raises UserError if the tokenizer or an end token is unusable."""
        encoder = load_tokenizer(tokenizer).encoder
        return cls(model, tokenizer, answer_ends([model, *adapters], encoder, taught.end), taught.template, encoder)

    def write(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation_config.json into FOLDER, next to the weights."""
        copy_tokenizer(self.tokenizer, folder)
        pad = self.encoder.names.get("pad_token")
        write_generation_config(folder, self.model, self.ends, self.encoder.tokenizer.token_to_id(pad) if pad else None)
        if self.template is not None:
            (folder / TEMPLATE).write_text(self.template, encoding="utf-8")
        before = json.loads((folder / CONFIG).read_text("utf-8"))
        after = self._tokenizer_config(before, folder)
        if after != before:
            write_json(folder / CONFIG, after)

    def _tokenizer_config(self, config: dict[str, Any], folder: Path) -> dict[str, Any]:
        found = {key: value for key, value in config.items() if key not in _UNSTABLE}
        if self.template is not None:
            # The template must be in one place only: some readers look here first.
            found.pop("chat_template", None)
        if "pad_token" not in self.encoder.names:
            texts = {number: token for token, number in self.encoder.tokenizer.get_vocab(with_added_tokens=True).items()}
            if padding := texts.get(padding_of(folder) or 0):
                found["pad_token"] = padding
        if (folder / FAST).is_file() and "tokenizer_class" not in found:
            # An adapter has no config.json from which transformers would derive the class.
            found["tokenizer_class"] = "PreTrainedTokenizerFast"
        return found
