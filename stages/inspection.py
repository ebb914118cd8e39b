"""Per-token view of one training row; run as `python -m stages.inspection`, with a JSON request on stdin.

The request names `model`, optionally `vocabulary` (the step that added tokens to it) and `adapter` or `trained` (a model trained in full),
`tokens`, `row`, `threads` and `numerics`; the result on stdout is one JSON object. A user error goes to stderr, with exit code 1.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.errors import Location, UserError
from stages.models.added_tokens import extend
from stages.models.folders import TextTokenizer, load_adapter, load_model, load_tokenizer, prepare_process
from stages.process import numerics
from stages.tokens.files import Tokens


def inspect(request: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens of the row, their supervision and each model's predictions; raises UserError if the row number is out of range."""
    prepare_process(request.get("threads"))
    tokens, number = Tokens.open(Path(request["tokens"])), int(request["row"])
    if not 0 <= number < len(tokens):
        hint = f"give a number from 0 to {len(tokens) - 1}" if len(tokens) else "the split is empty"
        raise UserError(f"row {number} is out of range: this file has {len(tokens)} rows", Location(str(request["tokens"])), hint)
    row = tokens.row(number)
    ids, supervised = [int(token) for token in row[0]], [bool(one) for one in row[1]]
    source = None if tokens.source_lengths is None else int(tokens.source_lengths[number])
    tokenizer = load_tokenizer(Path(request.get("vocabulary", request["model"])))
    said = {name: views(model, ids, source, tokenizer) for name, model in _models(request)}
    positions = [
        {"position": place, "id": token, "token": tokenizer.encoder.decode([[token]])[0], "supervised": learned}
        | {name: view[place] for name, view in said.items()}
        for place, (token, learned) in enumerate(zip(ids, supervised, strict=True))
    ]
    return {
        "row": number,
        "rows": len(tokens),
        "positions": positions,
        "loss": {name: loss(view, supervised) for name, view in said.items()},
    }


def _models(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The base model, then the trained one; in this order, because loading an adapter modifies the base."""
    model = load_model(Path(request["model"]))
    if "vocabulary" in request:
        extend(model, Path(request["vocabulary"]))
    yield "base", model
    if "adapter" in request:
        yield "trained", load_adapter(model, Path(request["adapter"]))
    elif "trained" in request:
        yield "trained", load_model(Path(request["trained"]))


def views(model: Any, ids: Sequence[int], source: int | None, tokenizer: TextTokenizer) -> list[dict[str, Any] | None]:
    """For each position: the argmax token and its probability; the true token's probability, loss (nats) and rank (from 1).

    None where the model predicts nothing: at the first position, or at the first SOURCE positions, which an encoder reads.
    """
    import torch

    with torch.inference_mode():
        logits = _logits(model, ids, source).double()
    unsaid = len(ids) - len(logits)
    found: list[dict[str, Any] | None] = [None] * unsaid
    for place, token in enumerate(ids[unsaid:]):
        logarithms = logits[place].log_softmax(-1)
        choice, truth = int(logarithms.argmax()), float(logarithms[token])
        found.append(
            {
                "says": tokenizer.encoder.decode([[choice]])[0],
                "says_probability": round(float(logarithms[choice].exp()), 6),
                "truth_probability": round(float(logarithms[token].exp()), 6),
                "truth_loss": round(-truth, 6),
                "truth_rank": 1 + int((logarithms > logarithms[token]).sum()),
            }
        )
    return found


def _logits(model: Any, ids: Sequence[int], source: int | None) -> Any:
    """Logits [predicted tokens, vocabulary]: of every token but the first, or of every token after the first SOURCE ones."""
    import torch

    if source is None:
        # A prompt-learning adapter prepends virtual tokens to the row.
        return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -len(ids) : -1]
    given = {"input_ids": ids[:source], "decoder_input_ids": [model.config.decoder_start_token_id, *ids[source:-1]]}
    inputs = {name: torch.tensor([tokens], dtype=torch.long, device=model.device) for name, tokens in given.items()}
    return model(**inputs, use_cache=False).logits[0]


def loss(view: Sequence[Mapping[str, Any] | None], supervised: Sequence[bool]) -> float | None:
    """Mean loss over the row's supervised tokens, in nats per token; None if it has none."""
    losses = [one["truth_loss"] for one, learned in zip(view, supervised, strict=True) if learned and one]
    return round(sum(losses) / len(losses), 6) if losses else None


def main() -> None:
    """Read one request from stdin and write the result to stdout."""
    try:
        request = json.load(sys.stdin)
        numerics.begin(request["numerics"])
        answer = inspect(request)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    json.dump(answer, sys.stdout, ensure_ascii=True, allow_nan=False)


if __name__ == "__main__":
    main()
