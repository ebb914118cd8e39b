"""An export that was broken on purpose is caught, with the row that shows it: each sort of damage that deployed models are known for."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine.core.errors import UserError
from stages.chat.formats.plain import Plain
from stages.export.body import asked_model
from stages.export.comparing import check
from stages.export.formats import Gguf, Merged
from stages.export.gguf.files import rewrite
from stages.export.runtimes.llama_cpp import llama_cpp
from stages.export.runtimes.transformers import Transformers
from stages.models.folders import load_model
from tests.stages.export.small import chat_model, job_of, rows, settings

TOKENS = "tokenizer.ggml"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder_export(model, tmp_path_factory):
    """The export as a folder, and what the trained model said."""
    place = tmp_path_factory.mktemp("folder")
    into = Merged(dtype="float32")
    material, asked, _ = asked_model(settings(into), job_of(place / "job", model=model, test_say=rows(place)))
    with into.exported(material):
        pass
    return material, asked, into.limits


@pytest.fixture(scope="module")
def file_export(model, tmp_path_factory):
    """The export as a GGUF file, and what the trained model said."""
    pytest.importorskip("xllamacpp", reason="needs the extra gguf")
    place = tmp_path_factory.mktemp("file")
    into = Gguf(type="f16")
    material, asked, _ = asked_model(settings(into), job_of(place / "job", model=model, test_say=rows(place)))
    with into.exported(material) as runtime:
        check(material, runtime, asked, into.limits)
    return material, asked, into.limits


def in_folder(export, folder, change):
    """The failure of the exported folder after CHANGE; None if it passes."""
    material, asked, limits = export
    shutil.copytree(material.output, folder)
    change(folder)
    return _failure(lambda: check(material, Transformers(folder, load_model(folder), material.weights), asked, limits))


def in_file(export, folder, values=dict, tensors=lambda name, data, kind: (data, kind)):
    """The failure of the GGUF file with other VALUES or TENSORS; None if it passes."""
    material, asked, limits = export
    folder.mkdir()
    rewrite(material.output / "model.gguf", folder / "model.gguf", values, tensors)

    @contextmanager
    def served():
        with llama_cpp(folder / "model.gguf", None, material.weights, material.context, 1) as server:
            yield server

    with served() as server:
        return _failure(lambda: check(material, server, asked, limits))


def _failure(run):
    try:
        run()
    except UserError as error:
        return str(error)
    return None


def edit(name, **changes):
    def change(folder: Path):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: value for key, value in (values | changes).items() if value is not None}))

    return change


def test_an_untouched_folder_passes(folder_export, tmp_path):
    assert in_folder(folder_export, tmp_path / "same", lambda folder: None) is None


def test_a_folder_without_its_template(folder_export, tmp_path):
    found = in_folder(folder_export, tmp_path / "broken", lambda folder: (folder / "chat_template.jinja").unlink())
    assert "carries no chat template" in found and "row row-" in found


def test_a_folder_whose_template_writes_bos_twice(folder_export, tmp_path):
    def double(folder):
        path = folder / "chat_template.jinja"
        path.write_text("{{ bos_token }}" + path.read_text())

    found = in_folder(folder_export, tmp_path / "broken", double)
    assert "chat template is not the one of the training" in found and "row row-" in found


def test_a_folder_whose_tokenizer_adds_bos_again(model, tmp_path):
    """Without a chat template, the tokenizer alone decides what stands before a text."""
    into = Merged(dtype="float32")
    job = job_of(tmp_path / "job", model=model, test_say=rows(tmp_path))
    material, asked, _ = asked_model(settings(into, format=Plain()), job)
    with into.exported(material):
        pass
    broken = tmp_path / "broken"
    shutil.copytree(material.output, broken)
    tokens = json.loads((broken / "tokenizer.json").read_text())
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    number = next(token["id"] for token in tokens["added_tokens"] if token["content"] == "<s>")
    special = {"<s>": {"id": "<s>", "ids": [number], "tokens": ["<s>"]}}
    pieces = [begin, begin, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens["post_processor"] = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special}
    (broken / "tokenizer.json").write_text(json.dumps(tokens))
    edit("tokenizer_config.json", chat_template=None)(broken)
    found = _failure(lambda: check(material, Transformers(broken, load_model(broken), material.weights), asked, into.limits))
    assert "token 0 is '<s>'" in found or "BOS '<s>'" in found


def test_a_folder_without_its_end_token(folder_export, tmp_path):
    found = in_folder(folder_export, tmp_path / "broken", edit("generation_config.json", eos_token_id=2))
    assert "does not stop at '<|endoftext|>'" in found and "would be answered without end" in found


def test_a_folder_without_its_scaling_of_positions(folder_export, tmp_path):
    change = edit("config.json", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    found = in_folder(folder_export, tmp_path / "broken", change)
    assert "kind of the rotary positions is default in the export, and linear in the trained model" in found


def test_a_folder_without_its_tied_embeddings(folder_export, tmp_path):
    found = in_folder(folder_export, tmp_path / "broken", edit("config.json", tie_word_embeddings=False))
    assert "lacks 1 weights, such as lm_head.weight" in found


def test_an_untouched_file_passes(file_export, tmp_path):
    assert in_file(file_export, tmp_path / "same") is None


def without(*keys):
    return lambda values: {key: value for key, value in values.items() if key not in keys}


def test_a_file_without_its_template(file_export, tmp_path):
    found = in_file(file_export, tmp_path / "broken", without("tokenizer.chat_template"))
    assert "carries no chat template, so llama.cpp would guess one for row row-" in found


def test_a_file_that_adds_bos_again(file_export, tmp_path):
    found = in_file(file_export, tmp_path / "broken", lambda values: values | {f"{TOKENS}.add_bos_token": True})
    assert "of row row-" in found and "BOS '<s>': 2 instead of 1" in found


def test_a_file_without_its_end_token(file_export, tmp_path):
    """llama.cpp knows some end tokens by their text, so the token is another one and has another name."""

    def lose(values):
        tokens = [text.replace("<|endoftext|>", "<|finis|>") for text in values[f"{TOKENS}.tokens"]]
        return values | {f"{TOKENS}.eos_token_id": 5, f"{TOKENS}.tokens": tokens}

    found = in_file(file_export, tmp_path / "broken", lose)
    assert "<|endoftext|>" in found and "row row-" in found


def test_a_file_without_its_scaling_of_positions(file_export, tmp_path):
    found = in_file(file_export, tmp_path / "broken", without("llama.rope.scaling.type", "llama.rope.scaling.factor"))
    assert "kind of the rotary positions is default in the export, and linear in the trained model" in found


def test_a_file_without_its_tied_embeddings(file_export, tmp_path):
    """The output layer has a matrix of its own, with other numbers than the embeddings."""
    material, asked, limits = file_export
    import gguf

    broken = tmp_path / "broken"
    broken.mkdir()
    reader = gguf.GGUFReader(material.output / "model.gguf")
    shape = next(tensor.data.shape for tensor in reader.tensors if tensor.name == "token_embd.weight")
    other = np.random.default_rng(1).normal(scale=0.3, size=shape).astype(np.float16)
    rewrite(material.output / "model.gguf", broken / "model.gguf", added={"output.weight": other})
    with llama_cpp(broken / "model.gguf", None, material.weights, material.context, 1) as server:
        found = _failure(lambda: check(material, server, asked, limits))
    assert "the probabilities of the first token of row row-" in found and "more than 0.001" in found


def test_a_file_with_other_weights(file_export, tmp_path):
    def noisy(name, data, kind):
        return (data * np.float16(1.5) if name == "blk.0.ffn_down.weight" else data), kind

    assert "diverge by" in in_file(file_export, tmp_path / "broken", tensors=noisy)
