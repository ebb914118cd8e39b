"""Adds embeddings of added tokens to a model, as a training does: `python -m stages.widening MODEL VOCABULARY OUTPUT`; all are folders.

An adapter that was trained with these tokens then loads without resizing the model first.
"""

import json
import sys
from pathlib import Path
from typing import cast

from engine.core.errors import UserError
from stages.models.added_tokens import extend
from stages.models.folders import Dtype, load_model, prepare_process, save_model


def main(arguments: list[str]) -> int:
    """Write MODEL with embeddings of the tokens in VOCABULARY (a vocabulary step) to OUTPUT; user errors go to stderr, with exit code 1."""
    model, vocabulary, output = (Path(argument) for argument in arguments)
    prepare_process()
    try:
        widen(model, vocabulary, output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def widen(folder: Path, vocabulary: Path, output: Path) -> None:
    """Like `main`; weights keep the data type in the configuration."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    model = load_model(folder, dtype=cast(Dtype, dtype))
    extend(model, vocabulary)
    output.mkdir()
    save_model(model, output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
