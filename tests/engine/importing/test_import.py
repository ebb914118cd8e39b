"""What the keys of other tools mean in a spec: one small configuration for each rule, and what it becomes."""

import tomllib
from typing import Any

import pytest

from engine.core.errors import UserError
from engine.importing.documents import read
from engine.importing.importing import recognised
from engine.spec.load import load_spec

ALPACA = "### Instruction:\n{{ instruction }}\n\n### Input:\n{{ input }}\n\n### Response:\n"

EXPECTED: dict[str, dict[str, Any]] = {
    "qlora-alpaca.yml": {
        "model": {"id": "someone/small-model", "revision": "main"},
        "tasks.instructions.source": {"kind": "hub", "id": "someone/instructions", "revision": "main", "limit": 500},
        "tasks.instructions.teacher": {"kind": "gold", "column": "output"},
        "tasks.instructions.split": {"validation": 0.1, "test": 0.0},
        "evaluation.split": "validation",
        "tokenization": {"max_length": 1024, "over_length": "drop"},
        "training.method": {"kind": "qlora", "lora_dropout": 0.05, "compute_dtype": "bfloat16"},
        "training.batching.kind": "packed",
        "training.global_batch.rows": 8,
        "training.optimizer": {"kind": "adamw_8bit", "paged": True},
        "training.schedule": {"kind": "cosine", "floor": 0.1, "warmup_ratio": 0.05},
        "training.learning_rate": 2e-5,
        "training.precision": "bfloat16",
        "resources": {"micro_batch": 2, "gradient_checkpointing": True, "report_to": ["wandb"]},
    },
    "chat.yml": {
        "model.revision": "0123456789abcdef0123456789abcdef01234567",
        "tasks.notes.source": {"kind": "jsonl", "path": "data/notes.jsonl"},
        "tasks.notes.layout.kind": "messages",
        "tokenization.mask.kind": "assistant",
        "tokenization.over_length": "truncate_completion_right",
        "tokenization.special_tokens": ["<|im_start|>", "<|im_end|>"],
        "training.steps": 200,
        "training.schedule.warmup_ratio": 0.1,
        "training.betas": [0.9, 0.95],
        "training.precision": "float16",
        "training.neftune_noise_alpha": 5.0,
        "training.method.init_lora_weights": "pissa",
        "training.method.use_rslora": True,
        "training.method.modules_to_save": ["lm_head"],
        "training.validation": {"every_steps": 50, "patience": 2},
    },
    "text.yml": {
        "tasks.books.layout.kind": "text",
        "tasks.books.source.columns": {"text": "chapter"},
        "tokenization": {"max_length": 2048, "over_length": "split"},
        "training.method.kind": "full",
        "resources.zero.stage": 3,
    },
    "defined.yml": {
        "tasks.questions.source.columns": {"instruction": "the question"},
        "tasks.questions.teacher": {"kind": "gold", "column": "reply"},
        "tokenization.mask.kind": "full",
        "resources.zero": {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
    },
    "factory.yaml": {
        "tasks.pairs.source": {"kind": "json", "path": "data/pairs.json", "limit": 100},
        "tasks.talks.source": {"kind": "hub", "id": "someone/talks", "revision": "main", "limit": 100},
        "tasks.talks.layout.kind": "messages",
        "tokenization.mask": {"kind": "assistant", "turns": "last"},
        "training.method": {"kind": "qlora", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "compute_dtype": "bfloat16"},
        "training.global_batch.rows": 16,
        "training.epochs": 3,
        "resources.report_to": ["tensorboard"],
        "evaluation.split": "validation",
    },
    "factory-full.yaml": {
        "tasks.renamed.source.columns": {"system": "role of the model"},
        "tasks.renamed.system": "{{ system or '' }}",
        "training.method.kind": "full",
        "training.batching.kind": "packed",
        "training.precision": "bfloat16",
        "training.schedule": {"kind": "linear", "warmup_ratio": 0.0},
        "resources.zero.stage": 3,
    },
    "trl.yaml": {
        "tokenization.format.kind": "chat",
        "tokenization.mask.kind": "assistant",
        "training.method": {"kind": "lora", "r": 32, "lora_dropout": 0.05},
        "training.batching.kind": "packed",
        "training.precision": "bfloat16",
        "training.schedule": {"kind": "constant", "warmup_ratio": 0.0},
        "training.global_batch.rows": 8,
    },
    "trl.json": {
        "tokenization": {"max_length": 256, "over_length": "truncate_prompt_left"},
        "training.method.kind": "full",
        "training.steps": 10,
        "training.schedule.warmup_ratio": 0.1,
    },
    "pairs.yml": {
        "tasks.pairs.layout.kind": "preference",
        "tasks.pairs.source.columns": {"messages": "asked", "chosen": "good", "rejected": "bad"},
        "tokenization.over_length": "drop",
        "training.objective": {"kind": "dpo", "beta": 0.3},
        "training.method": {"kind": "lora", "r": 8},
    },
    "factory-pairs.yaml": {
        "tasks.judged.layout.kind": "preference",
        "tasks.judged.source.columns": {"prompt": "q", "chosen": "good", "rejected": "bad"},
        "tokenization.over_length": "drop",
        "training.objective": {"kind": "simpo", "margin": 1.5},
    },
    "trl-pairs.yaml": {
        "tasks.pairs.layout.kind": "preference",
        "training.objective": {"kind": "dpo", "beta": 0.2, "loss": "hinge"},
        "training.learning_rate": 1e-6,
        "tokenization.over_length": "drop",
    },
    "anchors.yml": {"model.id": "someone/small-model", "training.global_batch.rows": 2},
    "misspelled.yml": {"training.global_batch.rows": 1},
}


def at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data[key]
    return data


@pytest.mark.parametrize("name", EXPECTED)
def test_a_configuration_becomes_a_spec_with_these_values(name, imported, workspace):
    (text,) = imported(name).files.values()
    written = tomllib.loads(text)
    for path, value in EXPECTED[name].items():
        found = at(written, path)
        assert (found if not isinstance(value, dict) else {key: found[key] for key in value}) == value, path


@pytest.mark.parametrize("name", EXPECTED)
def test_a_spec_passes_the_check_once_its_revisions_are_pinned(name, imported, workspace):
    found = imported(name)
    ((path, text),) = found.files.items()
    assert found.specs[0].unpinned == ('"main"' in text)
    (workspace / path).parent.mkdir()
    (workspace / path).write_text(text.replace('"main"', f'"{"1" * 40}"'), "utf-8")
    assert load_spec(workspace / path, workspace).experiment.experiment.name == path.split("/")[-1].removesuffix(".toml")


def test_each_value_is_followed_by_the_key_and_the_line_that_it_comes_from(imported, workspace):
    (text,) = imported("qlora-alpaca.yml").files.values()
    given = (workspace / "qlora-alpaca.yml").read_text("utf-8").splitlines()
    for line in text.splitlines():
        if ", line " in line and "[0]" not in line:
            key, _, number = line.rpartition("# ")[2].split(", line ")[0], "", line.rpartition(", line ")[2]
            assert given[int(number) - 1].startswith(line.rpartition("# ")[2].split(", ")[-2]), (key, line)
    assert "seed = 42              # default of seed" in text


def test_a_prompt_of_alpaca_has_the_input_only_where_a_row_has_one(imported):
    (text,) = imported("qlora-alpaca.yml").files.values()
    (prompt,) = tomllib.loads(text)["tasks"]["instructions"]["prompts"]
    assert prompt.startswith("{% if input %}Below is an instruction") and ALPACA in prompt
    assert prompt.partition("{% else %}")[2].count("### Input") == 0


REFUSED = {
    "rewards.yml": [("rl: training on judged answers (kto)", 2), ("datasets[0].type: the data set type llama3.ultra", 5)],
    "twice.yml": [
        ("fp16 and bf16 (line 5) set the same thing differently", 6),
        ("warmup_ratio and warmup_steps (line 7) set the same thing differently", 8),
        ("noisy_embedding_alpha and neftune_noise_alpha (line 9) set the same thing differently", 10),
    ],
    "key-twice.yml": [("'learning_rate' is set twice: here, and at line 2", 4)],
    "variables.yml": [("base_model refers to a variable, ${MODEL}", 1), ("datasets[0].path refers to a variable, $DATA", 2)],
    "nearest.yml": [
        ("lora_target_modules: layers by a pattern", 5),
        ("num_epochs: 1.5 epochs", 9),
        ("optimizer: the optimizer adamw_torch_4bit", 11),
        ("lr_scheduler: the schedule rex", 12),
    ],
    "factory-newer.yaml": [("'cutoff_length' is no key of LLaMA-Factory", 6), ("'use_quantum_loss' is no key of LLaMA-Factory", 7)],
    "at-odds.yml": [("use_dora is incompatible with init_lora_weights pissa", 6)],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_an_error_at_its_line(name, imported, workspace):
    with pytest.raises(UserError) as caught:
        imported(name)
    found = [(problem.what, problem.where.line) for problem in caught.value.problems]
    assert len(found) == len(REFUSED[name])
    for (what, line), (start, at_line) in zip(found, REFUSED[name], strict=True):
        assert what.startswith(start) and line == at_line
    assert all(problem.where.file == name for problem in caught.value.problems)


def test_every_refusal_names_the_nearest_thing_that_works(imported):
    with pytest.raises(UserError) as caught:
        imported("factory-refused.yaml")
    whats = " ".join(problem.what for problem in caught.value.problems)
    assert all(problem.hint for problem in caught.value.problems)
    assert "stage: training on rewards (ppo)" in whats and "training of some layers" in whats


def test_the_nearest_thing_is_used_if_the_user_accepts_it_and_is_told_as_a_warning(imported):
    found = imported("nearest.yml", nearest=True)
    (text,) = found.files.values()
    written = tomllib.loads(text)["training"]
    assert written["optimizer"]["kind"] == "adamw_8bit" and written["epochs"] == 2 and "nearest to optimizer: adamw_torch_4bit" in text
    assert len([w for w in found.specs[0].warnings if "cannot be honoured" in w.what]) == 4
    with pytest.raises(UserError):
        imported("rewards.yml", nearest=True)


def test_axolotl_ignores_a_misspelled_key_and_the_import_says_so_with_the_nearest_name(imported):
    warnings = imported("misspelled.yml").specs[0].warnings
    assert [(w.where.line, w.hint) for w in warnings] == [
        (6, "did you mean 'micro_batch_size'?"),
        (8, "did you mean 'gradient_accumulation_steps'?"),
    ]


def test_a_key_of_a_newer_version_is_refused_with_the_version_that_is_known(imported):
    with pytest.raises(UserError) as caught:
        imported("factory-newer.yaml")
    misspelled, newer = caught.value.problems
    assert misspelled.hint == "did you mean 'cutoff_len'?" and "LLaMA-Factory 0.9.6" in newer.hint


def test_values_behind_anchors_are_told(imported):
    warnings = [w for w in imported("anchors.yml").specs[0].warnings if "stands for" in w.what]
    assert [(w.where.line, w.what.partition(";")[0]) for w in warnings] == [
        (2, "*base stands for the value at line 1"),
        (6, "*shared stands for the value at line 3"),
    ]


def test_devices_multiply_the_global_batch(imported):
    (text,) = imported("qlora-alpaca.yml", devices=2).files.values()
    written = tomllib.loads(text)
    assert written["training"]["global_batch"]["rows"] == 16 and written["resources"]["devices"] == 2


def test_tables_that_several_configurations_share_go_into_parts(imported, workspace, write):
    second = (workspace / "qlora-alpaca.yml").read_text("utf-8").replace("lora_r: 16", "lora_r: 64").replace("colour: blue\n", "")
    found = imported("qlora-alpaca.yml", write(second, "wide.yml"))
    part, *specs = found.files
    assert part.startswith("specs/parts/") and specs == ["specs/qlora-alpaca.toml", "specs/wide.toml"]
    shared = tomllib.loads(found.files[part])
    assert {"model", "tasks", "tokenization", "mixture", "resources"} <= shared.keys() and "training" not in shared
    for path, text in found.files.items():
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text.replace('"main"', f'"{"1" * 40}"'), "utf-8")
    one, other = (load_spec(workspace / path, workspace).experiment for path in specs)
    assert (one.training.method.r, other.training.method.r) == (16, 64)
    assert one.model == other.model and one.tasks == other.tasks


def test_the_definitions_of_data_sets_may_be_given_or_lie_in_the_folder_that_is_named(imported, workspace):
    (found,) = imported("factory.yaml").files.values()
    assert imported("factory.yaml", "data/dataset_info.json").files["specs/factory.toml"] == found
    (workspace / "data/dataset_info.json").rename(workspace / "elsewhere.json")
    with pytest.raises(UserError, match=r"data/dataset_info.json, are not here") as caught:
        imported("factory.yaml")
    assert caught.value.problems[0].where.line == 8
    assert "tasks.pairs" in imported("factory.yaml", "elsewhere.json").files["specs/factory.toml"]


def test_an_unknown_data_set_is_named_with_the_nearest_one(imported, workspace, write):
    text = (workspace / "factory.yaml").read_text("utf-8").replace("pairs,talks", "pair")
    with pytest.raises(UserError, match="defines no data set 'pair'") as caught:
        imported(write(text, "x.yaml"))
    assert caught.value.problems[0].hint == "did you mean 'pairs'?"


@pytest.mark.parametrize(("name", "tool"), [("chat.yml", "axolotl"), ("factory.yaml", "llamafactory"), ("trl.yaml", "trl")])
def test_a_tool_is_recognised_by_the_keys(name, tool, workspace):
    assert recognised(read(workspace / name, name)) == tool


def test_a_file_that_is_no_configuration_is_refused(imported, write):
    with pytest.raises(UserError, match="no configuration of axolotl, LLaMA-Factory, TRL"):
        imported(write("fruit: apple\nvegetable: leek\n"))
    with pytest.raises(UserError, match="accelerate launch"):
        imported(write("compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\n"))


def test_text_that_is_not_yaml_is_an_error_at_its_line(imported, write):
    with pytest.raises(UserError, match="not valid YAML") as caught:
        imported(write("base_model: a\n  b: c\n"))
    assert caught.value.problems[0].where.line == 2


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("optimizer: adafactor", "training.optimizer.kind", "adafactor"),
        ("load_in_8bit: true\nadapter: lora\nlora_r: 4\nlora_alpha: 4\nlora_target_linear: true", "training.method.bits", 8),
        ("lr_scheduler: constant_with_warmup\nwarmup_ratio: 0.2", "training.schedule.warmup_ratio", 0.2),
        ("lr_scheduler: constant\nwarmup_ratio: 0.2", "training.schedule.warmup_ratio", 0.0),
        ("tf32: true\nbf16: false", "training.precision", "tf32"),
        ("lora_model_dir: adapters/old\nadapter: lora\nlora_r: 4\nlora_alpha: 4", "model.adapter", "adapters/old"),
        ("flash_attention: true", "resources.attention", "flash_attention_2"),
        ("save_steps: 25", "resources.checkpoints.every_steps", 25),
        ("batch_flattening: true", "training.batching.kind", "padding_free"),
        ("dataset_exact_deduplication: true", "tasks.instructions.cleaning", [{"kind": "duplicates"}]),
        ("seed: 7", "experiment.seed", 7),
    ],
)
def test_a_key_of_axolotl_means_this(change, path, value, imported, write):
    base = "base_model: a/b\ndatasets: [{path: a/instructions, type: alpaca}]\nsequence_len: 64\nmicro_batch_size: 1\nlearning_rate: 1e-5\n"
    (text,) = imported(write(base + change + "\n")).files.values()
    assert at(tomllib.loads(text), path) == value


def test_keys_of_axolotl_that_are_null_are_not_set(imported, write):
    dataset = "{path: a/b, type: chat_template, roles_to_train: null, train_on_eos: null}"
    given = f"base_model: a/b\ndatasets: [{dataset}]\nsequence_len: 64\nmicro_batch_size: 1\nlearning_rate: 1e-5\n"
    (text,) = imported(write(given)).files.values()
    assert tomllib.loads(text)["tokenization"]["mask"] == {"kind": "assistant"}


def test_axolotl_leaves_out_system_prompts_where_it_is_told_to(imported, write):
    dataset = "{path: a/b, type: chat_template, field_messages: conversations, message_field_role: from, drop_system_message: true}"
    given = f"base_model: a/b\ndatasets: [{dataset}]\nsequence_len: 64\nmicro_batch_size: 1\nlearning_rate: 1e-5\n"
    (text,) = imported(write(given)).files.values()
    columns = tomllib.loads(text)["tasks"]["b"]["source"]["columns"]
    assert columns["conversations"] == "conversations[1:] if conversations[0]['from'] == 'system' else conversations"
    assert columns["system"] == "none"


@pytest.mark.parametrize(
    ("dataset", "feature"),
    [
        ("{path: s3://bucket/rows.jsonl, type: alpaca}", "rows at s3://"),
        ("{path: a/b, type: input_output}", "segments with a label each"),
        ("{path: a/b, type: chat_template, train_on_eos: none}", "answers without a supervised end"),
        ("{path: a/b, type: chat_template, roles_to_train: [user]}", "training on turns of user"),
        ("{path: a/b, type: chat_template, roles_to_train: []}", "training on no turn at all"),
        (
            "{path: a/b, type: chat_template, message_property_mappings: {role: who, content: c}}",
            "messages with role: who, content: c",
        ),
        ("{path: a/b, type: my.own_strategy}", "the data set type my.own_strategy"),
        ("{path: a/b, type: alpaca, split: 'train[10:20]'}", "the part of rows train[10:20]"),
        ("{path: a/b, type: alpaca}, {path: a/c, type: chat_template}", "conversations and other types in one training"),
    ],
)
def test_a_data_set_that_a_spec_cannot_say_is_refused_with_the_feature(dataset, feature, imported, write):
    text = f"base_model: a/b\ndatasets: [{dataset}]\nsequence_len: 64\nmicro_batch_size: 1\nlearning_rate: 1e-5\n"
    with pytest.raises(UserError) as caught:
        imported(write(text))
    assert any(f"{feature}" in problem.what for problem in caught.value.problems)
