"""Writes merged weights as one GGUF file, with a Modelfile."""

from collections.abc import Iterator
from contextlib import contextmanager

from stages.export.gguf.vocabulary import vocabulary_of
from stages.export.gguf.writing import write_model
from stages.export.material import Material
from stages.export.modelfile import write_modelfile
from stages.export.runtimes.llama_cpp import LlamaCpp, llama_cpp

FILE = "model.gguf"


@contextmanager
def exported(material: Material, kind: str) -> Iterator[LlamaCpp]:
    """Write `model.gguf` with weights of the type KIND, and `Modelfile`, and serve the file."""
    vocabulary = vocabulary_of(material.encoder, material.ends, material.taught.template, material.adds_bos)
    write_model(material.weights, material.output / FILE, kind, vocabulary)
    write_modelfile(material, FILE)
    with llama_cpp(material.output / FILE, None, material.weights, material.context, material.threads) as server:
        yield server
