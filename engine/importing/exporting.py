"""Specs as configurations of other tools: the nearest one, with what cannot be said there in comments."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from engine.importing.preferences import SMOOTHED_BY_TRL
from engine.spec.models import HubAdapter, HubModel, LocalModel
from engine.spec.sections import Training
from stages.tokenize.masks import Assistant
from stages.train.objectives.distill import Distill
from stages.train.objectives.dpo import Dpo
from stages.train.objectives.kto import Kto
from stages.train.objectives.orpo import Orpo
from stages.train.objectives.simpo import Simpo

if TYPE_CHECKING:
    from engine.spec.sections import Experiment, Spec
    from stages.generate.sources import Source

_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw": "paged_adamw_32bit", "adafactor": "adafactor"}
_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
    "inverse_sqrt": "inverse_sqrt",
    "wsd": "warmup_stable_decay",
}
_BUILDERS = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet", "text": "text"}


_AXOLOTL_NAMES = {"r": "lora_r", "dora": "peft_use_dora", "rslora": "peft_use_rslora", "save": "lora_modules_to_save"}


class _Sheet:
    """A configuration while it is written: keys in order, and what it cannot say."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.unsaid: list[str] = []

    def put(self, key: str, value: Any, remark: str = "") -> None:
        self.lines.append(f"{key}: {_yaml(value)}" + (f"  # {remark}" if remark else ""))

    def raw(self, *lines: str) -> None:
        self.lines += lines

    def cannot(self, what: str) -> None:
        self.unsaid.append(what)

    def text(self, spec: "Spec", tool: str) -> str:
        """The file: its keys, then comments with what it does not say."""
        head = [f"# {spec.name} ({spec.path}) as the nearest configuration of {tool}."]
        tail = ["", "# What it cannot say:", *(f"# - {what}" for what in self.unsaid)] if self.unsaid else []
        return "\n".join([*head, *self.lines, *tail]) + "\n"


def _yaml(value: Any) -> str:
    """A value in YAML's flow notation, with numbers that YAML 1.1 reads as numbers."""
    if isinstance(value, float):
        text = repr(value)
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}" if exponent else text
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    if (
        isinstance(value, str)
        and value.replace("-", "").replace("_", "").replace("/", "").replace(".", "").isalnum()
        and not value[0].isdigit()
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


def export(spec: "Spec", tool: str) -> str:
    """The nearest configuration of TOOL (`axolotl`, `llamafactory` or `trl`) for SPEC."""
    return EXPORTERS[tool](spec)


def _axolotl(spec: "Spec") -> str:
    sheet, e = _Sheet(), spec.experiment
    _model(sheet, e, "base_model", "revision_of_model", "lora_model_dir")
    training = _training_of(sheet, e)
    if training is None:
        return sheet.text(spec, "axolotl")
    _adapter(sheet, training, _AXOLOTL_NAMES, "axolotl")
    pairs = _objective(sheet, training, "axolotl")
    sheet.raw("datasets:")
    for name in e.mixture.tasks if e.mixture else ():
        task = e.tasks[name]
        path, more = _rows(sheet, task, name)
        sheet.raw(f"  - path: {_yaml(path)}", *(f"    {key}: {_yaml(value)}" for key, value in more.items()))
        if pairs:
            sheet.raw("    type: chat_template.default" if e.tokenization.format.kind == "chat" else "    type: passthrough.default")
        elif e.tokenization.format.kind == "chat" and task.layout is not None:
            field = "messages" if task.layout.kind != "conversations" else "conversations"
            sheet.raw("    type: chat_template", f"    field_messages: {field}")
            if field == "conversations":
                sheet.raw("    message_property_mappings: {role: from, content: value}")
        elif task.layout is not None and task.layout.kind == "text":
            sheet.raw("    type: completion")
        else:
            sheet.raw("    type:", "      field_instruction: prompt", "      field_output: completion")
            sheet.raw(*(f'      {key}: "{{instruction}}"' for key in ("format", "no_input_format")))
            if e.tokenization.format.kind == "chat":
                sheet.cannot(f"the chat template around the prompts of task {name}: write its rows as messages, with type: chat_template")
        _held_out(sheet, name, task)
    _validation(sheet, e, "val_set_size")
    sheet.put("sequence_len", e.tokenization.max_length)
    if e.tokenization.over_length != "drop":
        sheet.put("excess_length_strategy", "raise" if e.tokenization.over_length == "error" else "truncate", e.tokenization.over_length)
    sheet.put("train_on_inputs", e.tokenization.mask.kind == "full")
    _template(sheet, e, "chat_template_jinja")
    sheet.put("sample_packing", training.batching.kind == "packed")
    _batch(sheet, e, training, "micro_batch_size", "gradient_accumulation_steps")
    _length(sheet, e, training, "num_epochs", "max_steps")
    _optimization(sheet, training, "optimizer", "lr_scheduler", "cosine_min_lr_ratio")
    return _ended(sheet, spec, training, "axolotl")


def _llamafactory(spec: "Spec") -> str:
    sheet, e = _Sheet(), spec.experiment
    _model(sheet, e, "model_name_or_path", "model_revision", "adapter_name_or_path")
    training = _training_of(sheet, e)
    judged = training is not None and isinstance(training.objective, Kto)
    sheet.put("stage", "kto" if judged else "dpo" if training and training.objective.on_pairs else "sft")
    sheet.put("do_train", True)
    if training is None:
        return sheet.text(spec, "LLaMA-Factory")
    _adapter(sheet, training, {"r": "lora_rank", "dora": "use_dora", "rslora": "use_rslora", "save": "additional_target"}, "llamafactory")
    pairs = _objective(sheet, training, "llamafactory")
    tasks = e.mixture.tasks if e.mixture else ()
    sheet.put("dataset", ",".join(tasks), "define them in dataset_info.json:")
    for name in tasks:
        task = e.tasks[name]
        path, more = _rows(sheet, task, name)
        sort: dict[str, Any] = {"formatting": "sharegpt"} if task.layout else {"columns": {"prompt": "prompt", "response": "completion"}}
        if pairs:
            # Its stage kto reads one answer a row.
            sort |= (
                {"columns": {"messages": "messages", "kto_tag": "label"}}
                if judged
                else {"ranking": True, "columns": {name: name for name in ("messages", "chosen", "rejected")}}
            )
        where = {"hf_hub_url": path} if task.layout and task.source.kind == "hub" else {"file_name": path}
        sheet.raw(f"#   {_json({name: where | ({'subset': more['name']} if 'name' in more else {}) | sort})}")
        _held_out(sheet, name, task)
    if e.tokenization.format.kind == "chat":
        sheet.raw("# template: the name of the template that writes what the chat template of the spec writes, such as qwen or llama3")
        sheet.cannot("the chat template itself: LLaMA-Factory's are its own")
    else:
        sheet.put("template", "empty")
    sheet.put("cutoff_len", e.tokenization.max_length)
    if e.tokenization.over_length != "truncate_completion_right":
        sheet.cannot(f"over_length = {e.tokenization.over_length}: it always cuts, question and answer in proportion, with the end token")
    sheet.put("train_on_prompt", e.tokenization.mask.kind == "full")
    last = e.tokenization.mask.kind == "completion" or (isinstance(e.tokenization.mask, Assistant) and e.tokenization.mask.turns == "last")
    sheet.put("mask_history", last)
    sheet.put("packing", training.batching.kind == "packed")
    sheet.put("neat_packing", training.batching.kind == "packed")
    _batch(sheet, e, training, "per_device_train_batch_size", "gradient_accumulation_steps")
    _length(sheet, e, training, "num_train_epochs", "max_steps")
    _optimization(sheet, training, "optim", "lr_scheduler_type", None)
    _validation(sheet, e, "val_size")
    return _ended(sheet, spec, training, "LLaMA-Factory")


def _trl(spec: "Spec") -> str:
    sheet, e = _Sheet(), spec.experiment
    _model(sheet, e, "model_name_or_path", "model_revision", None)
    training = _training_of(sheet, e)
    if training is None:
        return sheet.text(spec, "TRL")
    names = {"r": "lora_r", "dora": "use_dora", "rslora": "use_rslora", "save": "lora_modules_to_save"}
    _adapter(sheet, training, names, "trl")
    pairs = _objective(sheet, training, "trl")
    sheet.raw("datasets:")
    for name in e.mixture.tasks if e.mixture else ():
        task = e.tasks[name]
        path, more = _rows(sheet, task, name)
        local = task.layout is None or task.source.kind != "hub"
        sheet.raw(f"  - path: {_yaml(_BUILDERS.get(task.source.kind, 'json') if local and task.layout else 'json' if local else path)}")
        keys = ({"data_files": path} if local else {}) | {key: more[key] for key in ("name", "split") if key in more}
        sheet.raw(*(f"    {key}: {_yaml(value)}" for key, value in keys.items()))
        _held_out(sheet, name, task)
    sheet.put("max_length", e.tokenization.max_length)
    if e.tokenization.over_length not in ("truncate_completion_right", "truncate_prompt_left"):
        sheet.cannot(f"over_length = {e.tokenization.over_length}: it always cuts")
    if pairs:
        sheet.raw(f"# for: trl {'kto' if isinstance(training.objective, Kto) else 'dpo'}")
    else:
        sheet.put("truncation_mode", "keep_end" if e.tokenization.over_length == "truncate_prompt_left" else "keep_start")
        sheet.put("assistant_only_loss", e.tokenization.mask.kind == "assistant")
        sheet.put("completion_only_loss", e.tokenization.mask.kind == "completion")
        sheet.put("packing", training.batching.kind == "packed")
        sheet.put("padding_free", training.batching.kind == "padding_free")
        _template(sheet, e, None)
    _batch(sheet, e, training, "per_device_train_batch_size", "gradient_accumulation_steps")
    _length(sheet, e, training, "num_train_epochs", "max_steps")
    _optimization(sheet, training, "optim", "lr_scheduler_type", None)
    return _ended(sheet, spec, training, "TRL")


EXPORTERS: Mapping[str, Callable[["Spec"], str]] = {"axolotl": _axolotl, "llamafactory": _llamafactory, "trl": _trl}
"""How a spec is written for each tool."""


def _ended(sheet: _Sheet, spec: "Spec", training: Training, tool: str) -> str:
    """The file of TOOL, once the keys are written that all tools have last."""
    e = spec.experiment
    for key, precision in (("bf16", "bfloat16"), ("fp16", "float16"), ("tf32", "tf32")):
        sheet.put(key, training.precision == precision)
    sheet.put("seed", e.experiment.seed)
    if tool == "LLaMA-Factory":
        sheet.put("disable_gradient_checkpointing", not e.resources.gradient_checkpointing)
    else:
        sheet.put("gradient_checkpointing", e.resources.gradient_checkpointing)
    sheet.put("output_dir", f"outputs/{spec.name}")
    if e.mixture and e.mixture.sampler.kind != "proportional":
        sheet.cannot(f"mixture.sampler = {e.mixture.sampler.kind}: every row counts once per epoch")
    sheet.cannot("the evaluation, and the same bytes on other machines")
    return sheet.text(spec, tool)


def _objective(sheet: _Sheet, training: Training, tool: str) -> bool:
    """Write the loss of pairs, if TRAINING has one; returns whether it has."""
    objective = training.objective
    found: dict[str, dict[str, Any]]
    if isinstance(objective, Dpo):
        if tool in ("axolotl", "trl") and objective.label_smoothing and objective.loss not in SMOOTHED_BY_TRL:
            sheet.cannot("training.objective.label_smoothing: its loss sigmoid does not smooth labels")
        if tool == "llamafactory" and objective.loss == "robust":
            sheet.cannot("training.objective.loss = robust: the configuration has the loss sigmoid with the same label smoothing")
        found = {
            "axolotl": {
                "rl": "dpo",
                "rl_beta": objective.beta,
                "dpo_loss_type": (objective.loss,),
                "dpo_label_smoothing": objective.label_smoothing,
            },
            "llamafactory": {
                "pref_loss": "sigmoid" if objective.loss == "robust" else objective.loss,
                "pref_beta": objective.beta,
                "dpo_label_smoothing": objective.label_smoothing,
            },
            "trl": {"loss_type": (objective.loss,), "beta": objective.beta, "label_smoothing": objective.label_smoothing},
        }
    elif isinstance(objective, Kto):
        weights = {"desirable_weight": objective.desirable_weight, "undesirable_weight": objective.undesirable_weight}
        found = {
            "axolotl": {"rl": "kto", "rl_beta": objective.beta, **{f"kto_{key}": value for key, value in weights.items()}},
            "llamafactory": {
                "pref_beta": objective.beta,
                "kto_chosen_weight": objective.desirable_weight,
                "kto_rejected_weight": objective.undesirable_weight,
            },
            "trl": {"loss_type": objective.loss, "beta": objective.beta, **weights},
        }
        if objective.loss != "kto" and tool != "trl":
            sheet.cannot(f"training.objective.loss = {objective.loss}: its loss is that of KTO")
        if objective.estimates_kl:
            sheet.cannot("the divergence of a global batch: it estimates one for each micro-batch")
    elif isinstance(objective, Orpo):
        found = {
            "axolotl": {"rl": "orpo", "rl_beta": objective.weight},
            "llamafactory": {"pref_loss": "orpo", "pref_beta": objective.weight},
        }
    elif isinstance(objective, Simpo):
        strength = {"simpo_gamma": objective.margin}
        found = {
            "axolotl": {"rl": "simpo", "rl_beta": objective.beta, **strength, "cpo_alpha": 0.0},
            "llamafactory": {"pref_loss": "simpo", "pref_beta": objective.beta, **strength},
        }
    else:
        if isinstance(objective, Distill):
            sheet.cannot(f"training.objective = distill: its teacher '{objective.teacher}', whose predictions a step of its own keeps")
        return False
    for key, value in found.get(tool, {}).items():
        sheet.put(key, value)
    if tool not in found:
        sheet.cannot(f"training.objective = {objective.kind}: trl dpo has no such loss")
    columns = "label" if isinstance(objective, Kto) else "chosen and rejected"
    sheet.cannot(f"where the answers have their prompts: the columns here are those of a data set with messages and {columns}")
    return True


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _model(sheet: _Sheet, e: "Experiment", key: str, revision: str, adapter: str | None) -> None:
    model = e.model
    if isinstance(model, HubModel):
        sheet.put(key, model.id)
        sheet.put(revision, model.revision)
    elif isinstance(model, LocalModel):
        sheet.put(key, model.path)
    else:
        sheet.put(key, "?", "a folder with the model: build it, and name artifacts/<step>")
        sheet.cannot(f"the model, which is {type(model).__name__.removesuffix('Model').lower()}: a step makes it")
    found = getattr(model, "adapter", None)
    if found is not None and adapter:
        sheet.put(adapter, found.id if isinstance(found, HubAdapter) else found)
    elif found is not None:
        sheet.cannot("the adapter that the training goes on from")
    if getattr(model, "rope_scaling", None) is not None:
        sheet.cannot("model.rope_scaling: change the model's config.json")


def _training_of(sheet: _Sheet, e: "Experiment") -> Training | None:
    if e.training is None:
        sheet.cannot("an evaluation without a training")
    return e.training


def _adapter(sheet: _Sheet, training: Training, names: Mapping[str, str], tool: str) -> None:
    method = training.method
    low_rank = method.kind in ("lora", "qlora")
    if method.kind not in ("full", "lora", "qlora"):
        sheet.cannot(f"training.method = {method.kind}")
    if tool == "axolotl" and low_rank:
        sheet.put("adapter", method.kind)
    elif tool == "llamafactory":
        sheet.put("finetuning_type", "lora" if low_rank else "full")
    elif tool == "trl":
        sheet.put("use_peft", low_rank)
    if not low_rank:
        return
    if bits := getattr(method, "bits", None):
        sheet.put(*(("quantization_bit", bits) if tool == "llamafactory" else (f"load_in_{bits}bit", True)))
    sheet.put(names["r"], getattr(method, "r", 0))
    sheet.put("lora_alpha", getattr(method, "lora_alpha", 0))
    sheet.put("lora_dropout", getattr(method, "lora_dropout", 0.0))
    targets = getattr(method, "target_modules", "all-linear")
    if tool == "llamafactory":
        sheet.put("lora_target", "all" if targets == "all-linear" else ",".join(targets))
    elif targets == "all-linear":
        sheet.put(*(("lora_target_linear", True) if tool == "axolotl" else ("lora_target_modules", "all-linear")))
    else:
        sheet.put("lora_target_modules", targets)
    for short, field in (("dora", "use_dora"), ("rslora", "use_rslora")):
        if getattr(method, field, False):
            sheet.put(names[short], True)
    if saved := getattr(method, "modules_to_save", ()):
        sheet.put(names["save"], ",".join(saved) if tool == "llamafactory" else saved)
    start = getattr(method, "init_lora_weights", "default")
    if start != "default" and tool == "axolotl":
        sheet.put("peft_init_lora_weights", start)
    elif start != "default" and tool == "llamafactory" and start.startswith("pissa"):
        sheet.put("pissa_init", True)
        sheet.put("pissa_iter", 16 if start == "pissa_niter_16" else -1)
    elif start != "default":
        sheet.cannot(f"training.method.init_lora_weights = {start}")
    if getattr(method, "bias", "none") != "none":
        sheet.cannot(f"training.method.bias = {getattr(method, 'bias', '')}")


def _rows(sheet: _Sheet, task: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """Where the rows of a task are: conversations at their source, prompts with their answers in what the task's steps make."""
    if task.layout is not None:
        return _source(sheet, task.source, name)
    sheet.cannot(f"the prompts of task {name}: its rows are those of a step, to build first: engine build split-{name}")
    return f"artifacts/split-{name}/train.jsonl", {"ds_type": "json"}


def _source(sheet: _Sheet, source: "Source", task: str) -> tuple[Any, dict[str, Any]]:
    """Where the rows are, and further keys of axolotl's and TRL's data sets."""
    more: dict[str, Any] = {}
    limit = f"[:{source.limit}]" if source.limit else ""
    for name in ("columns", "where", "sample"):
        if getattr(source, name):
            sheet.cannot(f"tasks.{task}.source.{name}: write the rows so first")
    if source.kind == "hub":
        if source.config:
            more["name"] = source.config
        return source.id, {**more, "split": source.split + limit, "revision": source.revision}
    if source.kind in ("synthetic", "task", "pairs", "best_of"):
        sheet.cannot(f"the rows of task {task}, which a step makes: artifacts/split-{task}/train.jsonl once it is built")
        return f"artifacts/split-{task}/train.jsonl", {"ds_type": "json"}
    path = getattr(source, "path", "")
    path = path if isinstance(path, str) else path[0] if len(path) == 1 else path
    return path, {"ds_type": _BUILDERS[source.kind], "split": f"train{limit}"}


def _held_out(sheet: _Sheet, name: str, task: Any) -> None:
    if task.layout is not None and (task.split.shares[1] or task.split.fixed):
        sheet.cannot(
            f"the test rows of task {name}: write artifacts/split-{name}/train.jsonl as the rows, so that none of them is trained on"
        )
    if task.layout is None:
        return
    if task.cleaning:
        sheet.cannot(f"the cleaning of task {name}")
    if task.system:
        sheet.cannot(f"the system prompt of task {name}")
    if task.few_shot:
        sheet.cannot(f"the few-shot examples of task {name}")
    if task.layout is not None and task.teacher is not None and task.teacher.kind != "gold":
        sheet.cannot(f"the teacher of task {name}, whose answers replace those of the rows")


def _validation(sheet: _Sheet, e: "Experiment", key: str) -> None:
    """The share of validation rows; those of prompts are in a file of their own, which a step writes."""
    tasks = {name: e.tasks[name] for name in (e.mixture.tasks if e.mixture else ())}
    if made := [name for name, task in tasks.items() if task.layout is None and task.split.shares[0]]:
        sheet.cannot(f"the validation rows: they are in {', '.join(f'artifacts/split-{name}/validation.jsonl' for name in made)}")
    elif validation := max((task.split.shares[0] for task in tasks.values()), default=0.0):
        sheet.put(key, validation)


def _template(sheet: _Sheet, e: "Experiment", key: str | None) -> None:
    text, file = getattr(e.tokenization.format, "template", None), getattr(e.tokenization.format, "template_file", None)
    if e.tokenization.format.kind != "chat":
        return
    if key and (text or file):
        sheet.put(key, text or file)
    elif file:
        sheet.put("chat_template_path", file)
    elif text:
        sheet.cannot("the chat template of the spec: write it to a file, and name it as chat_template_path")
    if e.tokenization.special_tokens:
        if key:
            sheet.put("tokens", e.tokenization.special_tokens)
        else:
            sheet.cannot(f"the special tokens {', '.join(e.tokenization.special_tokens)}: add them to the tokenizer first")


def _batch(sheet: _Sheet, e: "Experiment", training: Training, micro: str, steps: str) -> None:
    rows = training.global_batch.rows
    devices = e.resources.devices * e.resources.nodes
    if training.global_batch.tokens:
        sheet.cannot("a global batch of tokens: rows are counted")
    asked = e.resources.micro_batch
    each = asked if isinstance(asked, int) else 1
    each = each if rows % (each * devices) == 0 else 1
    accumulation = max(1, rows // (each * devices))
    sheet.put(micro, each)
    sheet.put(steps, accumulation, f"{rows} rows per step on {devices} device{'s' * (devices > 1)}")
    if each * devices * accumulation != rows:
        sheet.cannot(f"a global batch of {rows} rows on {devices} devices: it is {each * devices * accumulation}")


def _length(sheet: _Sheet, e: "Experiment", training: Training, epochs: str, steps: str) -> None:
    if training.steps:
        sheet.put(steps, training.steps)
    else:
        sheet.put(epochs, training.epochs or 1)
    if e.mixture and (e.mixture.total_rows or e.mixture.total_tokens):
        sheet.cannot("a length in rows or tokens: count the epochs")


def _optimization(sheet: _Sheet, training: Training, optimizer: str, scheduler: str, floor: str | None) -> None:
    kind = training.optimizer.kind
    paged = getattr(training.optimizer, "paged", False)
    sheet.put(optimizer, "paged_adamw_8bit" if paged else _OPTIMIZERS[kind])
    sheet.put("learning_rate", training.learning_rate)
    sheet.put(scheduler, _SCHEDULES[training.schedule.kind])
    sheet.put("warmup_ratio", training.schedule.warmup_ratio)
    if training.schedule.floor and floor:
        sheet.put(floor, training.schedule.floor)
    elif training.schedule.floor:
        sheet.raw(f"lr_scheduler_kwargs: {{min_lr_rate: {training.schedule.floor}}}")
    sheet.put("weight_decay", training.weight_decay)
    sheet.put("max_grad_norm", training.max_grad_norm)
    if training.optimizer.has_betas:
        sheet.put("adam_beta1", training.betas[0])
        sheet.put("adam_beta2", training.betas[1])
    if training.neftune_noise_alpha:
        sheet.put("neftune_noise_alpha", training.neftune_noise_alpha)
