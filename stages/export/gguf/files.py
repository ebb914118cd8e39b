"""GGUF files read and written again: with other values, or with tensors in other types."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Tensor = tuple[Any, Any]
"""Data as the file holds them (numpy, rows of bytes if quantised), and their `GGMLQuantizationType`."""


def values_of(file: Path) -> dict[str, Any]:
    """The header values of FILE, except the lists of tokens, token types and merges."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    return {key: field.contents() for key, field in fields.items() if len(field.data) <= 64 or not key.startswith("tokenizer.ggml.")}


def tensor_names(file: Path) -> set[str]:
    """The names of the tensors in FILE."""
    from gguf import GGUFReader

    return {tensor.name for tensor in GGUFReader(file).tensors}


def largest(file: Path, tensor: str) -> float:
    """The largest value of an unquantised TENSOR in FILE."""
    from gguf import GGUFReader

    return max(float(one.data.max()) for one in GGUFReader(file).tensors if one.name == tensor)


def rewrite(
    source: Path,
    target: Path,
    values: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    tensors: Callable[[str, Any, Any], Tensor] = lambda name, data, kind: (data, kind),
    added: Mapping[str, Any] | None = None,
) -> None:
    """Write TARGET: the file SOURCE with what VALUES makes of its header values, and TENSORS of each tensor.

    TENSORS gets the name, the data and the type of a tensor. ADDED are unquantised tensors by name. A value that is new must be a text, a
    truth value or a whole number.
    """
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(source)
    old = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    chosen = values({key: field.contents() for key, field in old.items()})
    writer = GGUFWriter(target, str(chosen["general.architecture"]))
    for key, value in chosen.items():
        if key == "general.architecture":
            continue
        types = old[key].types if key in old else [_type_of(value)]
        writer.add_key_value(key, value, types[0], types[-1] if types[0] is GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        data, kind = tensors(tensor.name, tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    for name, data in (added or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(value: object) -> Any:
    from gguf import GGUFValueType

    if isinstance(value, bool):
        return GGUFValueType.BOOL
    return GGUFValueType.UINT32 if isinstance(value, int) else GGUFValueType.STRING
