"""dequantise: a GGUF file becomes a model in the layout of `from_pretrained`, with its tokenizer and chat template."""

from typing import Literal

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """In what numbers the weights are written."""

    dtype: Literal["float32", "bfloat16", "float16"] = recipe(
        "float32", "Type of the weights that are written; `float32` holds what the file says exactly, the others round it."
    )


KIND = Kind(
    "dequantise",
    "Turn a GGUF file into a model folder, with tokenizer and chat template.",
    Parameters,
    environment=("gguf", "safetensors", "tokenizers", "torch", "transformers"),
)
