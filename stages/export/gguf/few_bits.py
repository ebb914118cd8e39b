"""Q4_K_M: the type of each tensor as llama.cpp chooses it, and its own quantisation of rows.

The choice, for models without experts, is that of llama.cpp's `llama_tensor_get_type` (src/llama-quant.cpp, 2026): more bits for the output
layer, and for half of the layers' values and second feed-forward matrices. Rows whose length the type does not divide get a coarser block.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.core.errors import UserError
from stages.export.gguf.files import Tensor, rewrite, tensor_names, values_of

Q4_K_M = 15
"""llama.cpp's number of this mixture of types (`general.file_type`)."""

_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_KEPT = ("_norm.weight", "position_embd.weight", "token_types.weight", "ffn_gate_inp.weight")


def quantise(source: Path, target: Path) -> None:
    """Write TARGET: the model in SOURCE, whose matrices are float32 or float16, as Q4_K_M."""
    import numpy as np
    from gguf import GGMLQuantizationType

    layers, falcon, tied = _about(source)
    chunk = _quantiser()

    def converted(name: str, data: Any, kind: Any) -> Tensor:
        if data.ndim < 2 or not name.endswith("weight") or name.endswith(_KEPT):
            return data, kind
        wanted = GGMLQuantizationType[_type(name, int(data.shape[-1]), layers, falcon, tied)]
        if wanted is GGMLQuantizationType.F16:
            return data.astype(np.float16), wanted
        return chunk(np.ascontiguousarray(data, np.float32), wanted), wanted

    rewrite(source, target, lambda values: values | {"general.file_type": Q4_K_M}, converted)


def _about(source: Path) -> tuple[int, bool, bool]:
    """Number of layers, whether it is a Falcon, and whether the output layer shares the embeddings' matrix."""
    values = values_of(source)
    architecture = values["general.architecture"]
    return int(values[f"{architecture}.block_count"]), architecture == "falcon", "output.weight" not in tensor_names(source)


def _type(name: str, width: int, layers: int, falcon: bool, tied: bool) -> str:
    """The type of the matrix NAME with rows of WIDTH values."""
    blocks = width % 256 == 0
    if name == "output.weight" or (name == "token_embd.weight" and tied):
        chosen = "Q8_0" if falcon or not blocks else "Q6_K"
    elif name.startswith("blk."):
        _, number, part, *_ = name.split(".")
        chosen = _of_layer(part, int(number), layers, falcon)
    else:
        chosen = "Q4_K"
    if not blocks:
        chosen = _FALLBACKS.get(chosen, chosen)
    return chosen if blocks or width % 32 == 0 else "F16"


def _of_layer(part: str, number: int, layers: int, falcon: bool) -> str:
    more = number < layers // 8 or number >= 7 * layers // 8 or (number - layers // 8) % 3 == 2
    if part == "attn_qkv":
        return "Q5_K"
    if part == "ffn_down" and falcon:
        return "Q6_K" if number < layers // 16 else "Q5_K" if more else "Q4_K"
    return "Q6_K" if more and part in ("attn_v", "ffn_down") else "Q4_K"


def _quantiser() -> Callable[[Any, Any], Any]:
    """llama.cpp's function that quantises rows, out of the library in xllamacpp."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES
    from xllamacpp import xllamacpp

    try:
        function = ctypes.CDLL(xllamacpp.__file__).ggml_quantize_chunk
    except (OSError, AttributeError) as error:
        hint = "install a version of xllamacpp whose library exports ggml_quantize_chunk"
        raise UserError(f"this version of xllamacpp offers no quantisation: {error}", hint=hint) from None
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *([ctypes.c_int64] * 3), ctypes.c_void_p]

    def chunk(rows: Any, kind: Any) -> Any:
        flat = rows.reshape(-1, rows.shape[-1])
        values, size = GGML_QUANT_SIZES[kind]
        made = np.empty((flat.shape[0], flat.shape[1] // values * size), np.uint8)
        function(int(kind), flat.ctypes.data, made.ctypes.data, 0, *flat.shape, None)
        return made.reshape(*rows.shape[:-1], made.shape[-1])

    return chunk
