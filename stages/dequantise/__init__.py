"""dequantise: convert a GGUF file to a `from_pretrained` folder with tokenizer and chat template."""

from typing import Literal

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """The data type of the converted weights."""

    dtype: Literal["float32", "bfloat16", "float16"] = recipe(
        "float32", "Data type of the written weights; `float32` represents the file's values exactly, the others round them."
    )


KIND = Kind(
    "dequantise",
    "Convert a GGUF file to a model folder with tokenizer and chat template.",
    Parameters,
    environment=("gguf", "safetensors", "tokenizers", "torch", "transformers"),
)
