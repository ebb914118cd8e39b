"""All kinds of steps by name, in pipeline order."""

from engine.core.part import Kind
from stages import (
    benchmark,
    dequantise,
    evaluate,
    export,
    fetch,
    generate,
    initialize,
    logits,
    merge,
    mix,
    pair,
    predict,
    reference,
    rescale,
    score,
    split,
    tokenize,
    train,
    vocabulary,
)

_MODULES = (
    generate,
    split,
    fetch,
    dequantise,
    initialize,
    rescale,
    vocabulary,
    tokenize,
    reference,
    logits,
    mix,
    train,
    predict,
    pair,
    evaluate,
    score,
    benchmark,
    merge,
    export,
)

KINDS: dict[str, Kind] = {module.KIND.name: module.KIND for module in _MODULES}
