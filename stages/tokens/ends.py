"""End tokens: after which tokens generation stops, read from the files of a model. The only place that decides it.

An answer ends with any of these:
 1. the token that the chat template writes after an answer, which is supervised in training;
 2. the tokenizer's end-of-sequence token (`eos_token` in tokenizer_config.json);
 3. the tokens under `eos_token_id`, one or a list, in generation_config.json; if that file or its entry is missing, in config.json.

An adapter has its own generation_config.json, whose tokens count in addition to those of the base. Servers that use transformers, such
as vLLM, read the same files, so `write_generation_config` writes all of the tokens into one list.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import Location, UserError

if TYPE_CHECKING:
    from stages.tokens.encoder import Encoder

GENERATION_CONFIG, CONFIG = "generation_config.json", "config.json"

_ENDS, _PAD = "eos_token_id", "pad_token_id"

_START = "decoder_start_token_id"

_FROM_CONFIG = ("bos_token_id", _START, "forced_bos_token_id", "forced_eos_token_id", _PAD)
"""Keys that transformers takes from config.json if a model has no generation_config.json."""

_UNSTABLE = ("transformers_version", "_name_or_path", "_commit_hash")

_SPACE = re.compile(r"\s*")


def answer_ends(folders: Sequence[Path], encoder: "Encoder", end: str | None) -> tuple[int, ...]:
    """Ids of all end tokens, without duplicates, the supervised one first; never empty.

    FOLDERS are the model's folder and those of the adapters on it. ENCODER is the tokenizer, including the spec's added tokens. END is the
    text of the token that the chat template writes after an answer; None or empty if there is none.
    Raises UserError, located in the file, if an id is not a token of the model.
    """
    learned = encoder.tokenizer.token_to_id(end) if end else None
    # An adapter has no config.json: its ids are checked against the base.
    size = max([encoder.size(), *(_vocabulary(_read(folder / CONFIG)) for folder in folders)])
    declared = [token for folder in folders for token in declared_ends(folder, size)]
    return united(learned, encoder.eos_id, *declared)


def united(*tokens: int | None) -> tuple[int, ...]:
    """TOKENS in order, without duplicates and None."""
    return tuple(dict.fromkeys(token for token in tokens if token is not None))


def declared_ends(folder: Path, size: int = 0) -> tuple[int, ...]:
    """Ids of the end tokens in the configuration files in FOLDER; empty if there are none.

    An id below SIZE is valid even if config.json states fewer tokens, because a spec may add tokens.
    Raises UserError, located in the file, for an id that is not a token of the model, and for a file that cannot be read.
    """
    config = _read(folder / CONFIG)
    for path, values in ((folder / GENERATION_CONFIG, _read(folder / GENERATION_CONFIG)), (folder / CONFIG, _text_part(config))):
        named = values.get(_ENDS)
        # Some models use -1 or an empty list for none.
        found = [] if named is None or named == -1 else named if isinstance(named, list) else [named]
        if found:
            _check(found, path, max(_vocabulary(config), size))
            return united(*found)
    return ()


def end_behind(text: str, position: int, tokens: Iterable[str]) -> str | None:
    """The first of TOKENS that occurs in TEXT at POSITION, after optional white space; None if none does."""
    found = _SPACE.match(text, position)
    start = found.end() if found else position
    return next((token for token in tokens if text.startswith(token, start)), None)


def write_generation_config(folder: Path, model: Path, ends: Sequence[int], pad: int | None) -> None:
    """Write FOLDER's generation_config.json: that of the folder MODEL, with ENDS as `eos_token_id`, and a padding token.

    A decoder start token missing from MODEL's generation_config.json is taken from its config.json, since `generate` needs one.

    MODEL is the trained model. If FOLDER already has an equivalent file from `save_pretrained`, its bytes are kept. PAD is the id of the
    tokenizer's padding token; if None, the model's `pad_token_id`, or the first end token, which is transformers' default. A padding token
    in MODEL's generation_config.json is kept.
    """
    path = folder / GENERATION_CONFIG
    values = _read(path) or _read(model / GENERATION_CONFIG) or _from_config(model)
    named = values.get(_ENDS)
    same = isinstance(named, int | list) and {*(named if isinstance(named, list) else [named])} == {*ends}
    padding = values.get(_PAD)
    if values.get(_START) is None and (start := _text_part(_read(model / CONFIG)).get(_START)) is not None:
        values[_START] = start
    if not same:
        values[_ENDS] = ends[0] if len(ends) == 1 else list(ends)
        # It no longer mirrors config.json, from which some versions of transformers would restore values.
        values.pop("_from_model_config", None)
    if padding is None or not isinstance(padding, int) or padding < 0:
        values[_PAD] = ends[0] if pad is None else pad
    kept = {key: value for key, value in values.items() if key not in _UNSTABLE}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def padding_of(folder: Path) -> int | None:
    """The `pad_token_id` in FOLDER's generation_config.json."""
    found = _read(folder / GENERATION_CONFIG).get(_PAD)
    return found if isinstance(found, int) else None


def _from_config(model: Path) -> dict[str, Any]:
    config = _text_part(_read(model / CONFIG))
    return {key: config[key] for key in (*_FROM_CONFIG, _ENDS) if config.get(key) is not None}


def _text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text part of a configuration, which multimodal models nest."""
    inner = config.get("text_config")
    return {**(inner if isinstance(inner, dict) else {}), **{key: value for key, value in config.items() if value is not None}}


def _vocabulary(config: Mapping[str, Any]) -> int:
    found = _text_part(config).get("vocab_size")
    return found if isinstance(found, int) else 0


def _check(found: Sequence[object], path: Path, size: int) -> None:
    for token in found:
        if not isinstance(token, int) or isinstance(token, bool):
            what = f"{_ENDS} must contain token ids (integers), got {token!r}"
        elif token < 0 or (size and token >= size):
            what = f"{_ENDS} contains token {token}, but the model has {size} tokens (0 to {size - 1})"
        else:
            continue
        raise UserError(what, _line(path), "correct it, or take the file from the model's repository")


def _line(path: Path) -> Location:
    lines = path.read_text("utf-8").splitlines()
    number = next((number for number, line in enumerate(lines, 1) if f'"{_ENDS}"' in line), None)
    return Location(str(path), number, None, lines[number - 1] if number and len(lines[number - 1]) < 200 else None)


def _read(path: Path) -> dict[str, Any]:
    """The object in PATH; empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"this is not valid JSON: {error}", Location(str(path)), "take the file from the model's repository") from None
    if not isinstance(found, dict):
        raise UserError("this is not a JSON object", Location(str(path)), "take the file from the model's repository")
    return found
