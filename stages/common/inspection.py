"""What a training sees of one row, position by position; run as `python -m stages.common.inspection`, a JSON request on stdin.

The request names `model`, optionally `adapter` or `trained` (a model trained in full), `tokens`, `row` and `threads`; the answer on stdout
is one JSON object. A user's mistake is printed to stderr, exit code 1.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import Location, UserError
from stages.common.models import TextTokenizer, load_adapter, load_model, load_tokenizer, prepare_process
from stages.common.tokens import Tokens


def inspect(request: Mapping[str, Any]) -> dict[str, Any]:
    """Each token of the row, whether it is supervised, and what each model would have said there; raises UserError for no such row."""
    prepare_process(request.get("threads"))
    folder, tokens = Path(request["model"]), Tokens.open(Path(request["tokens"]))
    number = int(request["row"])
    if not 0 <= number < len(tokens):
        hint = f"give a number from 0 to {len(tokens) - 1}" if len(tokens) else "the split is empty"
        raise UserError(f"there is no row {number}: this file has {len(tokens)} rows", Location(str(request["tokens"])), hint)
    row = tokens.row(number)
    ids, supervised = [int(token) for token in row[0]], [bool(one) for one in row[1]]
    tokenizer = load_tokenizer(folder)
    model = load_model(folder)
    said = {"base": views(model, ids, tokenizer)}
    if "adapter" in request:
        said["trained"] = views(load_adapter(model, Path(request["adapter"])), ids, tokenizer)
    elif "trained" in request:
        said["trained"] = views(load_model(Path(request["trained"])), ids, tokenizer)
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


def views(model: Any, ids: Sequence[int], tokenizer: TextTokenizer) -> list[dict[str, Any] | None]:
    """At each position the model's own choice, its probability, that of the true token, and the latter's rank; None at the first."""
    import torch

    with torch.inference_mode():
        # A prompt-learning adapter puts positions of its own before the row.
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -len(ids) :].double()
    found: list[dict[str, Any] | None] = [None]
    for place, token in enumerate(ids[1:]):
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


def loss(view: Sequence[Mapping[str, Any] | None], supervised: Sequence[bool]) -> float | None:
    """Loss per supervised token of the row, in nats; None where nothing is supervised."""
    losses = [one["truth_loss"] for one, learned in zip(view, supervised, strict=True) if learned and one]
    return round(sum(losses) / len(losses), 6) if losses else None


def main() -> None:
    """Answer one request."""
    try:
        answer = inspect(json.load(sys.stdin))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    json.dump(answer, sys.stdout, ensure_ascii=True, allow_nan=False)


if __name__ == "__main__":
    main()
