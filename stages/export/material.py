"""What an export is made of: folders, tokenizer, end tokens and chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.chat.taught import Taught
from stages.models.serving import Serving

if TYPE_CHECKING:
    from stages.chat.formats import Format
    from stages.export.asked import Question
    from stages.tokens.encoder import Encoder


@dataclass(frozen=True)
class Material:
    """A trained model, and where its export goes."""

    output: Path
    """The folder of the export, empty."""
    weights: Path
    """Folder of whole weights: merged ones, a trained model's, or the base's if the adapter stays separate."""
    adapter: Path | None
    """Folder of an adapter that stays separate."""
    tokenizer: Path
    """Folder of the tokenizer, with added tokens."""
    encoder: "Encoder"
    taught: Taught
    form: "Format"
    """The format of rows."""
    ends: tuple[int, ...]
    """Ids of the end tokens."""
    questions: Sequence["Question"]
    context: int
    """Tokens that the longest question takes with its answer."""
    threads: int | None

    @property
    def serving(self) -> Serving:
        """What a folder needs beside weights."""
        adapters = [self.adapter] if self.adapter else []
        return Serving.of(self.taught, self.weights, self.tokenizer, adapters)

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer, not the chat template, puts a BOS token before a text."""
        return getattr(self.form, "start", "none") == "tokenizer" and bool(self.encoder.prefix)
