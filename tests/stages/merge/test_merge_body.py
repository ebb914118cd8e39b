"""Merged weights answer as the adapters beside their base do, and sums of updates are sums, checked by hand."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.core.errors import UserError
from stages.chat.formats.plain import Plain
from stages.chat.questions import Questions
from stages.merge import Parameters
from stages.merge.body import run
from stages.merge.combinations import Combination, DareLinear, DareTies, Linear, Svd, Ties
from stages.merge.probing import difference, read_probes
from stages.models.added_tokens import extend
from stages.models.folders import load_adapter, load_model, load_tokenizer
from stages.models.quantisation import Quantisation
from stages.rows.rows import read_rows
from stages.train.methods import Ia3, Lora, Qlora
from stages.vocabulary import Parameters as vocabulary_settings
from stages.vocabulary.body import run as add_tokens
from tests.stages.initialize.tiny import contents, make_job, make_model, texts, write_lines

QUANTISED = Quantisation(bits=4, quant_type="nf4", double_quant=True, compute_dtype="float32")


@pytest.fixture(scope="module", params=["falcon", "gpt2"])
def model(request, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp(request.param), request.param, initializer_range=0.2)


def adapter(folder, model, seed=1, method=None, scale=0.2):
    """An adapter on MODEL whose every update matters."""
    method = method or Lora(r=4, lora_alpha=6)
    torch.manual_seed(seed)
    adapted = method.prepare(load_model(model, quantisation=method.quantisation))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and ("lora_B" in name or "ia3" in name):
                weight.add_(torch.randn_like(weight) * scale)
    folder.mkdir(parents=True)
    method.save(adapted, folder)
    return folder


def split(folder, **rows):
    """The folder of a split step with ROWS of some splits."""
    folder.mkdir(parents=True)
    for name in ("train", "validation", "test"):
        write_lines(folder / f"{name}.jsonl", rows.get(name, []))
    return folder


def merge(folder, model, adapters, **values):
    rows = split(folder / "rows", test=texts())
    weights = values.pop("weights", dict.fromkeys(adapters, 1.0))
    reads = {"model": model, "rows/say": rows} | {f"adapter/{name}": path for name, path in adapters.items()}
    job = make_job(folder / "job", reads)
    return run(Parameters(adapters=weights, threads=1, **values), job), job.output


def state(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@torch.no_grad()
def answers(model):
    return model(torch.arange(2, 40)[None]).logits


def updates(base, folder):
    """The update of each matrix, by what peft itself merges."""
    before, after = state(load_model(base)), state(load_adapter(load_model(base), folder).merge_and_unload())
    return {name: after[name] - weight for name, weight in before.items()}


METHODS = {
    "lora": Lora(r=4),
    "dora": Lora(r=4, use_dora=True),
    "rslora": Lora(r=4, use_rslora=True),
    "biases": Lora(r=4, bias="all"),
    "ia3": Ia3(),
}


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_answers_as_it_does_on_its_base(tmp_path, model, method):
    folder = adapter(tmp_path / "a", model, method=METHODS[method])
    metrics, output = merge(tmp_path, model, {"a": folder})
    plain = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, local_files_only=True)
    on_base, base = load_adapter(load_model(model), folder), load_model(model)
    assert torch.allclose(answers(plain), answers(on_base), atol=1e-4)
    assert not torch.allclose(answers(plain), answers(base), atol=1e-2)
    assert 0 <= metrics["logit_difference"] <= metrics["tolerance"] == 1e-4 and metrics["rows"] == 8
    assert metrics["parameters"] == sum(weight.numel() for weight in base.parameters()) and metrics["shards"] == 1
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (model / name).read_bytes()
    assert not list(output.glob("adapter*"))


@pytest.mark.parametrize("rslora", [False, True])
def test_a_linear_combination_is_the_weighted_sum_of_the_updates(tmp_path, model, rslora):
    """Also of adapters of several ranks, scales and signs."""
    methods = [Lora(r=4, lora_alpha=6, use_rslora=rslora), Lora(r=6, lora_alpha=5, target_modules="all-linear")]
    folders = {name: adapter(tmp_path / name, model, seed, method) for seed, (name, method) in enumerate(zip("ab", methods, strict=True))}
    _, output = merge(tmp_path, model, folders, weights={"a": 0.75, "b": -0.5})
    one, other = (updates(model, folder) for folder in folders.values())
    found = state(load_model(output))
    for name, weight in state(load_model(model)).items():
        assert torch.allclose(found[name], weight + 0.75 * one[name] - 0.5 * other[name], atol=1e-5), name


def test_one_adapter_with_a_weight(tmp_path, model):
    folder = adapter(tmp_path / "a", model)
    _, output = merge(tmp_path, model, {"a": folder}, weights={"a": 0.25})
    update, found = updates(model, folder), state(load_model(output))
    assert all(torch.allclose(found[name], w + 0.25 * update[name], atol=1e-5) for name, w in state(load_model(model)).items())


COMBINATIONS: list[Combination] = [Linear(), Svd(), Ties(), DareLinear(), DareTies()]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda one: one.kind)
def test_every_combination_gives_the_same_bytes_again(tmp_path, model, combination):
    folders = {name: adapter(tmp_path / name, model, seed) for seed, name in enumerate("ab")}
    (one, first), (two, second) = (
        merge(tmp_path / again, model, folders, weights=weights, combination=combination)
        for again, weights in (("once", {"a": 1.0, "b": 0.5}), ("twice", {"b": 0.5, "a": 1.0}))
    )
    assert one == two and contents(first) == contents(second)
    if combination.kind.startswith("dare"):
        _, third = merge(tmp_path / "seed", model, folders, weights={"a": 1.0, "b": 0.5}, combination=combination, seed=1)
        assert contents(third)["model.safetensors"] != contents(first)["model.safetensors"]


def test_all_singular_values_are_the_sum_and_fewer_are_not(tmp_path, model):
    folders = {name: adapter(tmp_path / name, model, seed) for seed, name in enumerate("ab")}
    outputs = [
        merge(tmp_path / str(number), model, folders, combination=combination)[1]
        for number, combination in enumerate((Linear(), Svd(rank=8), Svd(rank=4)))
    ]
    whole, all_of_them, fewer = (answers(load_model(output)) for output in outputs)
    assert torch.allclose(whole, all_of_them, atol=1e-3) and not torch.allclose(whole, fewer, atol=1e-2)


def test_weights_in_several_files(tmp_path, model):
    folder = adapter(tmp_path / "a", model)
    metrics, output = merge(tmp_path, model, {"a": folder}, max_shard_size="40KB")
    files = sorted(output.glob("*.safetensors"))
    index = json.loads((output / "model.safetensors.index.json").read_text())["weight_map"]
    assert metrics["shards"] == len(files) > 1 and set(index.values()) == {file.name for file in files}
    assert all(file.stat().st_size < 50_000 or len(load_file(file)) == 1 for file in files)
    _, whole = merge(tmp_path / "whole", model, {"a": folder})
    assert torch.equal(answers(load_model(output)), answers(load_model(whole)))


def test_a_difference_above_the_tolerance_is_an_error(tmp_path, model):
    folder = adapter(tmp_path / "a", model)
    with pytest.raises(UserError, match=r"differ .* more than merge.tolerance = 1e-12") as caught:
        merge(tmp_path, model, {"a": folder}, tolerance=1e-12)
    assert "increase merge.tolerance" in str(caught.value)


@pytest.mark.parametrize(("bits", "most"), [(4, 1e-4), (8, 0.05)])
def test_a_quantised_training_is_merged_into_the_rounded_base(tmp_path, model, bits, most):
    method = Qlora(r=4, bits=bits)
    folder = adapter(tmp_path / "a", model, method=method)
    metrics, output = merge(tmp_path, model, {"a": folder}, quantised=QUANTISED.model_copy(update={"bits": bits}))
    trained = load_adapter(load_model(model, quantisation=method.quantisation), folder)
    apart = float((answers(load_model(output)) - answers(trained)).abs().max() / answers(trained).abs().max())
    # 8-bit layers round what they read as well, which no weights can.
    assert metrics["difference_to_quantised"] <= most and apart <= most
    _, plain = merge(tmp_path / "plain", model, {"a": folder})
    assert not torch.allclose(answers(load_model(plain)), answers(load_model(output)), atol=1e-3)


@pytest.mark.parametrize("module", ["lm_head", "word_embeddings", "wte"])
def test_modules_that_were_trained_in_full(tmp_path, model, module):
    base = load_model(model)
    if not any(name.endswith(module) for name, _ in base.named_modules()):
        pytest.skip(f"{base.config.model_type} has no {module}")
    method = Lora(r=4, modules_to_save=(module,))
    torch.manual_seed(1)
    adapted = method.prepare(base)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and module in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    (tmp_path / "a").mkdir()
    method.save(adapted, tmp_path / "a")
    metrics, output = merge(tmp_path, model, {"a": tmp_path / "a"})
    assert metrics["logit_difference"] <= 1e-4
    assert torch.allclose(answers(load_model(output)), answers(load_adapter(load_model(model), tmp_path / "a")), atol=1e-3)


def test_tokens_that_were_added_come_along(tmp_path, model):
    vocabulary = make_job(
        tmp_path / "vocabulary", {f"tokenizer/{name}": model / name for name in ("tokenizer.json", "tokenizer_config.json")}
    )
    add_tokens(vocabulary_settings(special_tokens=("<|say|>", "<|end|>")), vocabulary)
    method, base = Lora(r=4), load_model(model)
    extend(base, vocabulary.output)
    adapted = method.prepare(base)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    (tmp_path / "a").mkdir()
    method.save(adapted, tmp_path / "a")
    rows = split(tmp_path / "rows", test=[{**row, "prompt": f"<|say|>{row['prompt']}"} for row in texts()])
    reads = {"model": model, "vocabulary": vocabulary.output, "rows/say": rows, "adapter/a": tmp_path / "a"}
    job = make_job(tmp_path / "job", reads)
    metrics = run(Parameters(adapters={"a": 1.0}, threads=1), job)
    merged = load_model(job.output)
    assert metrics["logit_difference"] <= 1e-4
    assert merged.config.vocab_size == load_model(model).config.vocab_size + 2 == merged.get_input_embeddings().weight.shape[0]
    assert load_tokenizer(job.output).encode("<|say|>") == [merged.config.vocab_size - 2]
    adapted.eval()
    assert torch.allclose(answers(merged), answers(adapted), atol=1e-4)


def test_an_encoder_decoder_model(tmp_path):
    model = make_model(tmp_path / "model", "t5")
    metrics, output = merge(tmp_path, model, {"a": adapter(tmp_path / "a", model)}, encoder_decoder=True)
    asked = {"input_ids": torch.arange(2, 20)[None], "decoder_input_ids": torch.arange(2, 9)[None]}
    with torch.no_grad():
        merged, on_base = load_model(output)(**asked).logits, load_adapter(load_model(model), tmp_path / "a")(**asked).logits
    assert metrics["rows"] == 8 and torch.allclose(merged, on_base, atol=1e-4)
    assert not torch.allclose(merged, load_model(model)(**asked).logits, atol=1e-2)


def test_the_difference_of_logits_is_relative_and_no_number_is_no_agreement():
    theirs = [torch.tensor([[1.0, -4.0]]), torch.tensor([[0.5, 2.0]])]
    assert difference([theirs[0], theirs[1] + 0.2], theirs) == pytest.approx(0.05)
    assert difference(theirs, theirs) == 0
    for broken in (float("nan"), float("inf")):
        assert difference([theirs[0], torch.tensor([[broken, 2.0]])], theirs) == float("inf")


def test_a_task_without_held_out_rows_is_checked_on_those_of_its_training(tmp_path):
    asking = Questions(Plain(), load_tokenizer(make_model(tmp_path, "gpt2")).encoder)
    given = texts()
    test, validation = {"test": given[:2]}, {"validation": given[2:3]}
    for name, held_out in (("test", test | validation), ("validation", validation), ("train", {})):
        rows = split(tmp_path / name, train=given[3:], **held_out)
        wanted = [asking.ids([row])[0] for row in read_rows(rows / f"{name}.jsonl")]
        assert sorted(probe.question for probe in read_probes([rows], 99, asking)) == sorted(wanted)


def test_tasks_without_any_rows_cannot_be_compared_on(tmp_path, model):
    folder = adapter(tmp_path / "a", model)
    job = make_job(tmp_path / "job", {"model": model, "rows/say": split(tmp_path / "empty"), "adapter/a": folder})
    with pytest.raises(UserError, match="no row of any task can be rendered"):
        run(Parameters(adapters={"a": 1.0}, threads=1), job)


def test_ranks_that_do_not_fit_are_told_of(tmp_path, model):
    folders = {"a": adapter(tmp_path / "a", model), "b": adapter(tmp_path / "b", model, method=Lora(r=8))}
    with pytest.raises(UserError, match="cannot combine the adapters a, b"):
        merge(tmp_path, model, folders, combination=Ties())
