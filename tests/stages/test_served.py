"""A folder that was written here is served as it was evaluated: transformers alone, with the folder's own files, stops where we stop."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from stages import merge, predict, tokenize, train, vocabulary
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.chat.markers import Markers
from stages.merge.body import run as merge_body
from stages.models.added_tokens import extend
from stages.models.folders import load_model, save_model
from stages.predict.body import run as predict_body
from stages.tokenize.body import run as tokenize_body
from stages.tokenize.masks import Assistant, Completion, Delimited
from stages.train.body import run as train_body
from stages.train.methods import Full, Lora, Qlora
from stages.vocabulary.body import run as vocabulary_body
from tests.stages.initialize.tiny import contents, make_job, make_model, parameters, texts, write_lines
from tests.stages.train.tiny import write_order

ROWS, ASKED, LIMIT = 160, 6, 6
TURNS = ("<|im_start|>", "<|im_end|>")
CHAT = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""
TWO_ENDS = CHAT.replace("<|im_end|>\n", "<|im_end|>{{ eos_token }}\n")
MANNER = CHAT.replace("{{ m.role }}", "{{ m.role }}{{ manner }}").replace("assistant\n", "assistant{{ manner }}\n")
LORA, QLORA = Lora(r=8, lora_alpha=16), Qlora(r=8, lora_alpha=16)


TWO = "template file, two processes"


class Case(NamedTuple):
    """What is trained, and in which format."""

    architecture: str = "llama"
    method: object = Full()
    form: object = Plain()
    mask: object = Completion()
    file: str | None = None
    """The text of the template file that the spec names."""
    own: str | None = None
    """The base's own chat template, whose tokens the base has."""
    devices: int = 1
    generation: dict | None = None
    """What the base's generation_config.json says besides."""


CASES = {
    "plain, full": Case(),
    "plain, lora": Case(method=LORA),
    "plain, qlora": Case(method=QLORA),
    "plain behind a space, lora": Case(method=LORA, form=Plain(prompt="Q: {{ prompt }}\nA:")),
    "plain, the base names further ends": Case(generation={"eos_token_id": [0, 44]}),
    "plain, the base names further ends, lora": Case(method=LORA, generation={"eos_token_id": [45, 44], "pad_token_id": 0}),
    "template file, full": Case(form=Chat(template_file="c"), mask=Assistant(), file=CHAT),
    "template file, lora": Case(method=LORA, form=Chat(template_file="c"), mask=Assistant(), file=CHAT),
    TWO: Case(method=LORA, form=Chat(template_file="c"), mask=Assistant(), file=CHAT, devices=2),
    "template file over the base's own": Case(form=Chat(template_file="c"), mask=Assistant(), file=TWO_ENDS, own="{{ messages }}"),
    "template with variables": Case(form=Chat(template_file="c", variables={"manner": " briefly"}), mask=Assistant(), file=MANNER),
    "own template, full": Case(form=Chat(), mask=Assistant(), own=CHAT),
    "own template, lora": Case(method=LORA, form=Chat(), mask=Assistant(), own=CHAT),
    "own template, qlora": Case(method=QLORA, form=Chat(), mask=Assistant(), own=CHAT),
    "own template, further ends": Case(method=LORA, form=Chat(), mask=Assistant(), own=TWO_ENDS, generation={"eos_token_id": [0, 44]}),
    "delimited, full": Case(mask=Delimited(instruction="Q", response="A:"), form=Plain(prompt="Q: {{ prompt }}\nA:")),
    "delimited, lora": Case(method=LORA, mask=Delimited(instruction="Q", response="A:"), form=Plain(prompt="Q: {{ prompt }}\nA:")),
    "encoder-decoder, plain, full": Case(architecture="t5"),
    "encoder-decoder, plain, lora": Case(architecture="t5", method=LORA),
    "encoder-decoder, template file": Case(architecture="t5", form=Chat(template_file="c"), file=CHAT),
    "encoder-decoder, own template, lora": Case(architecture="t5", method=LORA, form=Chat(), own=CHAT),
}


def make_base(folder, case):
    """A model with random weights; where its chat template is its own, with the template's tokens in resized embeddings."""
    from stages.initialize.body import run
    from stages.initialize.tokenizers import Tokenizer

    if isinstance(case.mask, Delimited):
        job = make_job(folder, {"rows/words": write_lines(folder / "rows.jsonl", texts())})
        sized = parameters(case.architecture, hidden_size=64)
        run(sized.model_copy(update={"tokenizer": Tokenizer(vocab_size=300, bos="<s>")}), job)
        base = job.output
    else:
        base = make_model(folder, case.architecture, hidden_size=64)
    if case.own:
        added = add_tokens(folder / "own", base)
        model = load_model(base)
        extend(model, added)
        # Random numbers, as a model's own tokens have: a frozen head could not tell two equal rows apart.
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight[-2:].normal_(std=float(weight[:-2].std()), generator=torch.Generator().manual_seed(0))
        save_model(model, base)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (base / name).write_bytes((added / name).read_bytes())
        update(base / "tokenizer_config.json", chat_template=case.own)
    update(base / "generation_config.json", **case.generation or {})
    return base


def update(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def add_tokens(folder, base):
    job = make_job(folder, {f"tokenizer/{name}": base / name for name in ("tokenizer.json", "tokenizer_config.json")})
    vocabulary_body(vocabulary.Parameters(special_tokens=TURNS), job)
    return job.output


def build(folder, case):
    """The inputs that the steps of a model share, and the folder that its training writes."""
    base = make_base(folder / "base", case)
    shared = {"model": base}
    if case.file and not case.own:
        shared["vocabulary"] = add_tokens(folder / "vocabulary", base)
    tokenizer = shared.get("vocabulary", base)
    reads = {f"tokenizer/{name}": tokenizer / name for name in ("tokenizer.json", "tokenizer_config.json")}
    reads |= {"train": write_lines(folder / "train.jsonl", texts(ROWS)), "validation": write_lines(folder / "validation.jsonl", texts(2))}
    if case.file:
        (folder / "c.jinja").write_text(case.file)
        reads["chat_template"] = folder / "c.jinja"
    tokens = make_job(folder / "tokens", reads)
    pairs = case.architecture == "t5"
    tokenize_body(tokenize.Parameters(format=case.form, mask=case.mask, max_length=60, encoder_decoder=pairs), tokens)
    # Each round has the same rows: some models take longer to learn where to end.
    rounds = 4 if case.architecture == "t5" and isinstance(case.form, Chat) else 3 if case.own and case.file else 1
    inputs = shared | {"order": repeated(write_order(folder / "order", {"words": ROWS}), rounds), "format": tokens.output / "format.json"}
    inputs |= {
        f"{split}/words": tokens.output / f"{name}.safetensors" for split, name in (("tokens", "train"), ("validation", "validation"))
    }
    job = make_job(folder / "trained", inputs, plot=True)
    learning = {"schedule": train.Schedule(kind="constant"), "threads": 1, "devices": case.devices}
    learning["learning_rate"] = (2e-2 if case.method.makes_adapter else 4e-3) if case.architecture != "t5" else 8e-3
    train_body(train.Parameters(method=case.method, global_batch=train.GlobalBatch(rows=ROWS // 40), **learning), job)
    return shared | ({"chat_template": folder / "c.jinja"} if case.file else {}), job.output


def repeated(order, rounds):
    path = order / "order.safetensors"
    save_file({name: np.tile(values, rounds) for name, values in load_file(path).items()}, path)
    return order


def evaluated(folder, case, inputs):
    """What our evaluation says: of each row the answer's tokens and whether it ended."""
    job = make_job(folder, inputs | {"test/words": write_lines(folder / "test.jsonl", texts(ASKED))})
    markers = Markers(instruction=case.mask.instruction, response=case.mask.response) if isinstance(case.mask, Delimited) else None
    asked = {"words": predict.TaskPrediction(max_new_tokens=LIMIT)}
    given = {"tasks": asked, "format": case.form, "markers": markers, "encoder_decoder": case.architecture == "t5", "threads": 1}
    predict_body(predict.Parameters(**given), job)
    made = [json.loads(line) for line in (job.output / "predictions-words.jsonl").read_text().splitlines()]
    return [(row["tokens"], row["finish_reason"] == "stop", row["answer"]) for row in made]


def without(inputs, role):
    """INPUTS but for one: a whole model that was written has the added tokens in it."""
    return {key: path for key, path in inputs.items() if key != role}


def served(case, folder, model):
    """What transformers says with the files of FOLDER and nothing else of ours."""
    tokenizer, generation = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
    ends = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    found = []
    for row in texts(ASKED):
        if isinstance(case.form, Chat):
            messages = [{"role": "user", "content": row["prompt"]}]
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        else:
            text = case.form.prompt.replace("{{ prompt }}", row["prompt"]) + ("<s>" if isinstance(case.mask, Delimited) else "")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pairs = case.architecture == "t5"
        ids = torch.tensor([[*ids, *([tokenizer.eos_token_id] if pairs else [])]])
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=generation, max_new_tokens=LIMIT)
        new = out[0, 1 if pairs else ids.shape[1] :].tolist()
        ended = new[-1] in ends
        found.append((len(new) - ended, ended, tokenizer.decode(new[: len(new) - ended])))
    return found


@pytest.mark.parametrize("name", [pytest.param(TWO, marks=pytest.mark.slow) if name == TWO else name for name in CASES])
def test_a_served_model_stops_where_the_evaluation_does(tmp_path, name):
    case = CASES[name]
    inputs, folder = build(tmp_path, case)
    auto = AutoModelForSeq2SeqLM if case.architecture == "t5" else AutoModelForCausalLM
    if not case.method.makes_adapter:
        ours = evaluated(tmp_path / "asked", case, {**without(inputs, "vocabulary"), "model": folder})
        theirs = served(case, folder, auto.from_pretrained(folder).eval())
        assert ours == theirs and any(ended for _, ended, _ in ours), "else there would be nothing to see"
        return
    ours = evaluated(tmp_path / "asked", case, {**inputs, "adapter": folder})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = auto.from_pretrained(inputs["model"])
    if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer))
    theirs = served(case, folder, PeftModel.from_pretrained(base, folder).eval())
    assert ours == theirs and any(ended for _, ended, _ in ours), "else there would be nothing to see"

    # The merged model is a folder of its own.
    for split in ("train", "validation", "test"):
        write_lines(tmp_path / f"probes/{split}.jsonl", texts(4) if split == "test" else [])
    reads = inputs | {"adapter/one": folder, "rows/words": tmp_path / "probes"}
    job = make_job(tmp_path / "merged", reads)
    given = {"format": case.form, "encoder_decoder": case.architecture == "t5", "quantised": case.method.quantisation, "threads": 1}
    merge_body(merge.Parameters(adapters={"one": 1.0}, **given), job)
    ours = evaluated(tmp_path / "asked-merged", case, {**without(inputs, "vocabulary"), "model": job.output})
    theirs = served(case, job.output, auto.from_pretrained(job.output).eval())
    assert ours == theirs and any(ended for _, ended, _ in ours)
    assert GenerationConfig.from_pretrained(job.output).eos_token_id == GenerationConfig.from_pretrained(folder).eos_token_id


def test_the_weights_are_those_of_a_training_that_knows_no_format(tmp_path):
    case = CASES["template file, lora"]
    _, folder = build(tmp_path, case)
    inputs = {"model": tmp_path / "base/output", "vocabulary": tmp_path / "vocabulary/output", "order": tmp_path / "order"}
    tokens = {
        "tokens/words": tmp_path / "tokens/output/train.safetensors",
        "validation/words": tmp_path / "tokens/output/validation.safetensors",
    }
    job = make_job(tmp_path / "again", inputs | tokens, plot=True)
    learning = {"schedule": train.Schedule(kind="constant"), "learning_rate": 2e-2, "threads": 1}
    train_body(train.Parameters(method=case.method, global_batch=train.GlobalBatch(rows=ROWS // 40), **learning), job)
    one, other = contents(folder), contents(job.output)
    assert {name for name in one if one[name] != other.get(name)} == {"chat_template.jinja", "generation_config.json"}
