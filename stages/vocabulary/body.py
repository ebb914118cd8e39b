"""Body of vocabulary: adds special tokens to the tokenizer's files and lists their ids."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken

from stages.models.added_tokens import NEW_TOKENS
from stages.models.folders import write_json
from stages.process.job import Job, Metrics
from stages.tokens.encoder import CONFIG, FAST, Encoder
from stages.vocabulary import Parameters


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the tokenizer's files and `new_tokens.json`, the added tokens with their ids; raises UserError for an unusable tokenizer."""
    files = job.group("tokenizer")
    encoder = Encoder.open(files)
    tokenizer = type(encoder.tokenizer).from_file(str(files[FAST]))
    before = encoder.size()
    # Matched verbatim, without the tokenizer's normalisation.
    added = tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in parameters.special_tokens])
    for name, path in files.items():
        shutil.copyfile(path, job.output / name)
    tokenizer.save(str(job.output / FAST), pretty=True)
    ids = {token: tokenizer.token_to_id(token) for token in parameters.special_tokens}
    _list(job.output / CONFIG, ids)
    write_json(job.output / NEW_TOKENS, {token: number for token, number in ids.items() if number >= before})
    assert (job.output / CONFIG).is_file()
    return {"tokens_before": before, "added": added, "already_there": len(parameters.special_tokens) - added}


def _list(path: Path, ids: Mapping[str, int]) -> None:
    """Also add the tokens to tokenizer_config.json if it lists added tokens, since transformers then prefers it to tokenizer.json."""
    config = json.loads(path.read_text("utf-8"))
    if not isinstance(listed := config.get("added_tokens_decoder"), dict):
        return
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    more = {str(number): {"content": token, **plain} for token, number in ids.items()}
    write_json(path, config | {"added_tokens_decoder": more | listed})
