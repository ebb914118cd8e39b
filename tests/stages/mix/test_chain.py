"""generate, split, tokenize and mix one after the other, as a pipeline runs them."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages import generate, mix, split, tokenize
from stages.generate import body as generate_body
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold
from stages.mix import body as mix_body
from stages.process.job import Job
from stages.rows.jsonl import write_rows
from stages.split import body as split_body
from stages.tokenize import body as tokenize_body
from stages.tokens.files import Tokens, memory_map


def work(body, parameters, folder, name, inputs):
    output = folder / name
    output.mkdir()
    return body.run(parameters, Job(name, inputs, output, None, folder)), output


def tokenizer_files(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([], trainers.BpeTrainer(special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    return {f"tokenizer/{name}": folder / name for name in ("tokenizer.json", "tokenizer_config.json")}


def task(folder, name, rows, files):
    """The metrics of the steps of one task, and its train tokens."""
    write_rows(folder / f"{name}.jsonl", rows)
    parameters = generate.Parameters(source=Jsonl(path="x"), prompts=("{{ q }}=", "{{ q }} is "), teacher=Gold(column="a"))
    made, output = work(generate_body, parameters, folder, f"generate-{name}", {"source": folder / f"{name}.jsonl"})
    parts, output = work(split_body, split.Parameters(), folder, f"split-{name}", {"rows": output / "rows.jsonl"})
    inputs = {part: output / f"{part}.jsonl" for part in ("train", "validation")} | files
    tokens, output = work(tokenize_body, tokenize.Parameters(), folder, f"tokenize-{name}", inputs)
    return made, parts, tokens, output / "train.safetensors"


def test_every_row_is_accounted_for_from_the_source_to_the_order(tmp_path):
    files = tokenizer_files(tmp_path)
    sums = task(tmp_path, "sums", [{"q": f"{n}+{n}", "a": 2 * n} for n in range(200)], files)
    words = task(tmp_path, "words", [{"q": f"w{n}", "a": "x" * (n % 4)} for n in range(40)], files)
    for made, parts, tokens, _ in (sums, words):
        assert made["rows_out"] == parts["rows_in"]
        assert parts["train"] == tokens["train"]["rows_in"] and parts["validation"] == tokens["validation"]["rows_in"]
    assert words[0]["left_out"] == {"empty completion": 10}
    inputs = {"tokens/sums": sums[3], "tokens/words": words[3]}
    metrics, output = work(mix_body, mix.Parameters(epochs=2), tmp_path, "mix", inputs)
    assert metrics["rows"] == 2 * (sums[2]["train"]["rows_out"] + words[2]["train"]["rows_out"])
    assert metrics["tasks"]["sums"]["tokens"] == 2 * sums[2]["train"]["tokens"]
    order = memory_map(output / "order.safetensors")
    uses = np.bincount(order["row"][order["task"] == 1], minlength=len(Tokens.open(words[3])))
    assert (uses == 2).all()
