"""Configurations of `trl sft`, `trl dpo` and `trl kto`: what each key means in a spec.

Facts are those of TRL 1.16 (github.com/huggingface/trl): `SFTConfig`, `DPOConfig`, `KTOConfig`, `ModelConfig`, `ScriptArguments` and
`DatasetMixtureConfig` for names and defaults, trl/trainer/sft_trainer.py, dpo_trainer.py and kto_trainer.py for what becomes of rows.
"""

from collections.abc import Mapping
from typing import Any

from engine.core.errors import Problem
from engine.importing import common, reasons
from engine.importing.common import Request
from engine.importing.preferences import SMOOTHED_BY_TRL, put_dpo, put_kto, put_pairs, settle_pairs
from engine.importing.reading import Draft, Reading, Refusal
from engine.importing.rows import first_row, put_rows, task_name
from engine.importing.schemas import listed, names, version
from engine.importing.training_arguments import REFUSED as ARGUMENTS_REFUSED
from engine.importing.training_arguments import WITHOUT_MEANING as ARGUMENTS_WITHOUT_MEANING
from engine.importing.training_arguments import put_arguments

TOOL = "trl"


WITHOUT_MEANING: Mapping[str, str] = {
    **dict.fromkeys(
        ("dataset_num_proc", "dataset_streaming", "streaming", "dataset_kwargs", "pad_to_multiple_of", "pad_token"), reasons.LOADER
    ),
    "shuffle_dataset": "a mixture is shuffled",
    "trust_remote_code": reasons.LOADER,
    "ignore_bias_buffers": reasons.LAUNCH,
    "activation_offloading": reasons.SPEED,
    "dtype": "the base is stored in the precision of the training",
    "bnb_4bit_quant_storage": reasons.SPEED,
    "lora_task_type": "a model that writes text",
    "env": "variables of the process that trains; set them where the build runs",
    **dict.fromkeys(("precompute_ref_log_probs", "precompute_ref_batch_size"), "a step of its own computes what the reference says, once"),
    **dict.fromkeys(("ref_model_mixup_alpha", "ref_model_sync_steps", "discopop_tau", "f_alpha_divergence_coef"), reasons.OFF),
    "router_aux_loss_coef": "of mixtures of experts, whose loss is the cross entropy here",
}
"""Keys that have no meaning in a spec, and why."""

REFUSED: Mapping[str, Refusal] = {
    "model_init_kwargs": Refusal("arguments of from_pretrained", "leave it out", nearest=True),
    "lora_target_parameters": Refusal("updates of bare parameters, such as experts", "leave it out", nearest=True),
    "loss_weights": Refusal("weights of several losses", "one loss", off=((1.0,), (1,)), nearest=True),
    "ld_alpha": Refusal("DPO that weighs tokens beyond the shorter answer less", "every token alike", off=(1.0, 1), nearest=True),
    "f_divergence_type": Refusal("another divergence from the reference", "reverse_kl", off=("reverse_kl",), nearest=True),
    "use_weighting": Refusal("weights of pairs (WPO)", "leave it out", nearest=True),
    "sync_ref_model": Refusal("a reference model that follows the training", "a fixed reference", nearest=True),
    "eos_token": Refusal("another end token", "the token that the template writes after an answer", nearest=True),
}
"""Keys that ask for what a spec cannot say."""

HANDLED = frozenset(
    (
        *("model_name_or_path", "model_revision", "attn_implementation", "use_peft", "lora_r", "lora_alpha", "lora_dropout"),
        *("lora_target_modules", "lora_modules_to_save", "use_rslora", "use_dora", "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type"),
        *("use_bnb_nested_quant", "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "datasets"),
        *("test_split_size", "chat_template_path", "dataset_text_field", "max_length", "truncation_mode", "packing", "packing_strategy"),
        *("padding_free", "eval_packing", "completion_only_loss", "assistant_only_loss", "loss_type", "beta", "label_smoothing"),
        *("disable_dropout", "desirable_weight", "undesirable_weight"),
    )
)
"""Keys that this module reads one by one; `training_arguments` reads those of transformers."""


_NOT_OF: Mapping[str, tuple[str, ...]] = {
    "sft": ("dpo_keys", "kto_keys"),
    "dpo": ("sft_keys", "kto_keys"),
    "kto": ("sft_keys", "not_kto_keys"),
}
"""For each command, the lists of keys that it does not have."""
_KTO_LOSSES = ("kto", "apo_zero_unpaired")


def read(request: Request) -> Draft:
    """The experiment of a TRL configuration; its problems and warnings are in the draft."""
    draft = Draft(TOOL)
    command = _command(Reading(draft, request.document.root, names(TOOL)), request)
    others = listed(TOOL, *_NOT_OF[command])
    reading = Reading(draft, request.document.root, names(TOOL) - others, request.nearest)
    common.put_name(reading, request)
    if reading.given("model_name_or_path"):
        common.put_model(reading, request, "model_name_or_path", "model_revision")
    else:
        draft.problems.append(Problem("model_name_or_path is missing", reading.node.key, "it names the model to train"))
        reading.none("model_name_or_path", "model_revision", why="there is no model")
    common.put_epochs(reading, "num_train_epochs", "max_steps", 3.0)
    put_arguments(reading, request, rate=2e-5 if command == "sft" else 1e-6, bf16=True, checkpointing=True)
    _put_data(reading, request, command)
    _put_method(reading)
    if command != "sft":
        _put_preferences(reading, request, command)
    else:
        _put_tokens(reading, request)
    common.put_attention(reading, "attn_implementation", str(a) if (a := reading.get("attn_implementation")) else None)
    reading.without_meaning(ARGUMENTS_WITHOUT_MEANING)
    reading.without_meaning({key: why for key, why in WITHOUT_MEANING.items() if key in reading.known})
    reading.refusals(ARGUMENTS_REFUSED)
    reading.refusals({key: refusal for key, refusal in REFUSED.items() if key in reading.known})
    for key in [*reading.strangers()]:
        newer = f"known keys are those of trl {command} {version(TOOL)}; leave out those of other commands and of newer versions"
        reading.unknown(key, f"is no key of trl {command}, which would stop at it", reading.known, newer)
    reading.none(*(key for key in others if key not in reading.node.content), why=f"not of trl {command}")
    reading.rest()
    common.settle(draft)
    return draft


def _command(reading: Reading, request: Request) -> str:
    """The command that a configuration is for, `sft`, `dpo` or `kto`: by its keys, its loss or its rows, if they are here."""
    if any(key in reading.node.content for key in listed(TOOL, "kto_keys")):
        return "kto"
    losses = set(reading.names("loss_type")) if reading.child("loss_type") is not None else set()
    if losses & set(_KTO_LOSSES):
        return "kto"
    name = str(reading.get("dataset_name") or "")
    row = first_row(request, {"path": name, "kind": "json" if name.endswith(".json") else "jsonl"}) or {}
    if {"completion", "label"} <= row.keys():
        return "kto"
    of_dpo = any(key in reading.node.content for key in listed(TOOL, "dpo_keys"))
    return "dpo" if of_dpo or losses - {"nll", "dft", "chunked_nll"} or {"chosen", "rejected"} <= row.keys() else "sft"


def _put_preferences(reading: Reading, request: Request, command: str) -> None:
    """Format, lengths and loss of a training on pairs or on judged answers."""
    reading.put("tokenization.max_length", _length(reading), "max_length")
    row = next((row for _, row in _first_rows(reading, request) if row), None)
    texts = row is not None and isinstance(row.get("chosen", row.get("completion")), str)
    remark = "" if row else 'for answers that are texts: kind = "plain"'
    reading.draft.set("tokenization.format.kind", "plain" if texts else "chat", ["the columns of the first row"], remark)
    if command == "kto":
        _put_kto(reading)
    else:
        losses = reading.names("loss_type") or ("sigmoid",)
        put_dpo(reading, losses, "loss_type", "beta", "label_smoothing", smoothed=SMOOTHED_BY_TRL)
    without = reading.flag("disable_dropout", True)
    reading.taken("disable_dropout", ours="training.method.lora_dropout")
    truncation, rows = ("max_length", "rows") if command == "kto" else ("truncation_mode", "pairs")
    settle_pairs(reading, "TRL", truncation, f"TRL cuts off the ends of answers; here long {rows} are left out", not without)
    if command == "dpo":
        reading.none("padding_free", why="TRL ignores it in a training on pairs")


def _put_kto(reading: Reading) -> None:
    why = "TRL estimates the divergence in each micro-batch; here there is one for the global batch"
    loss = ", ".join(reading.names("loss_type")) or "kto"
    reading.put("training.objective.kind", "kto", "loss_type", why=why if loss == "kto" else "", differs=loss == "kto")
    if loss == "apo_zero_unpaired":
        reading.put("training.objective.loss", loss, "loss_type")
    elif loss != "kto":
        reading.refuse("loss_type", f"the loss {loss} of judged answers", ", ".join(_KTO_LOSSES))
    put_kto(reading, "beta", "desirable_weight", "undesirable_weight")


def _put_data(reading: Reading, request: Request, command: str) -> None:
    single = reading.given("dataset_name")
    several = reading.child("datasets")
    if single and several is not None:
        reading.conflict("dataset_name", "datasets", hint="TRL takes datasets and leaves out dataset_name; remove one of them")
    tasks: list[str] = []
    if several is not None and isinstance(several.content, tuple):
        for number, node in enumerate(several.content):
            if not isinstance(node.content, dict):
                reading.wrong("datasets", "a list of mappings")
                continue
            inner = reading.inside(node, listed(TOOL, "dataset_keys"), f"datasets[{number}]")
            name = task_name(str(inner.get("path") or inner.get("name") or "rows"), tasks)
            put_rows(inner, request, ("tasks", name, "source"), {"path": "path", "name": "name", "split": "split", "files": "data_files"})
            _put_layout(reading, request, name, command)
            for key, what in (("data_dir", "a folder of a data set"), ("columns", "some columns only"), ("fraction", "a part of the rows")):
                if not inner.given(key):
                    inner.same(key, why="not set")
                elif key == "columns":
                    inner.none(key, why="templates read the columns that they name")
                elif key == "fraction":
                    share, why = float(inner.number(key) or 1), "rows chosen by their content here, at random there"
                    inner.put(("tasks", name, "source", "sample"), {"share": share}, key, why=why, differs=True)
                else:
                    inner.refuse(key, what, "download it; source.path takes files and patterns")
            for key in [*inner.strangers()]:
                inner.unknown(key, "is no key of a data set of trl sft", inner.known, "leave it out")
            tasks.append(name)
        reading.taken("datasets", ours="tasks")
        for key in ("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split"):
            reading.none(key, why="datasets says it")
    elif single:
        name = task_name(str(reading.get("dataset_name")), tasks)
        put_rows(
            reading, request, ("tasks", name, "source"), {"path": "dataset_name", "name": "dataset_config", "split": "dataset_train_split"}
        )
        _put_layout(reading, request, name, command)
        tasks.append(name)
        reading.same("datasets", why="dataset_name says it")
        if reading.given("dataset_test_split") and str(reading.get("eval_strategy", "no")) != "no":
            source = {path[3:]: s for path, s in reading.draft.settings.items() if path[:3] == ("tasks", name, "source")}
            for path, setting in source.items():
                reading.draft.set(("tasks", name, "split", "test_source", *path), setting.value, setting.sources)
            reading.put(("tasks", name, "split", "test_source", "split"), str(reading.get("dataset_test_split")), "dataset_test_split")
        else:
            reading.none("dataset_test_split", why="there is no validation on it")
    else:
        reading.draft.problems.append(Problem("no data set", reading.node.key, "dataset_name, or datasets"))
        reading.none("datasets", "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", why="there is no data set")
    if not tasks and command == "sft":
        reading.none("dataset_text_field", why="there is no data set")
    reading.draft.datasets |= {task: {} for task in tasks}
    reading.draft.set("mixture.tasks", tuple(tasks), ["datasets" if several else "dataset_name"])
    size = reading.number("test_split_size")
    for task in tasks:
        split = ("tasks", task, "split")
        if size and size < 1:
            why = "which rows are held out follows from their content here, and from a random order there"
            reading.put((*split, "validation"), float(size), "test_split_size", why=why, differs=True)
        else:
            reading.draft.set((*split, "validation"), 0.0, ["no rows are held out"])
    common.put_unseen_rows(reading.draft, tasks)
    reading.same("test_split_size", why="no rows are held out")


def _put_layout(reading: Reading, request: Request, task: str, command: str) -> None:
    row = dict(_first_rows(reading, request))[task] if command == "kto" else None
    if command == "dpo" or (row and {"chosen", "rejected"} <= row.keys()):
        put_pairs(reading, ("tasks", task), {}, ["columns prompt, chosen and rejected"])
        return
    if command == "kto":
        put_pairs(reading, ("tasks", task), {}, ["columns prompt, completion and label"], "unpaired_preference")
        return
    reading.draft.set(("tasks", task, "layout", "kind"), "auto", ["columns messages, prompt and completion, or text"])
    column = str(reading.get("dataset_text_field", "text"))
    if column != "text":
        reading.put(("tasks", task, "source", "columns", "text"), column, "dataset_text_field")
    else:
        reading.same("dataset_text_field", why="the column text")


def _length(reading: Reading) -> int | None:
    length = reading.integer("max_length", 1024)
    if "max_length" in reading.node.content and not reading.given("max_length"):
        reading.refuse("max_length", "rows of any length", "tokenization.max_length", nearest=True)
        return 1024
    return length


def _first_rows(reading: Reading, request: Request) -> list[tuple[str, Mapping[str, object] | None]]:
    """The first row of each task; None where it is not here."""
    tasks: Mapping[str, Any] = reading.draft.plain().get("tasks", {})
    return [(name, first_row(request, task["source"])) for name, task in tasks.items()]


def _put_tokens(reading: Reading, request: Request) -> None:
    """Format, mask and lengths."""
    loss = str(reading.get("loss_type", "nll"))
    if loss in ("nll", "chunked_nll"):
        reading.same("loss_type", why="the cross entropy")
    else:
        reading.refuse("loss_type", f"the loss {loss}", "the cross entropy", nearest=True)
    reading.put("tokenization.max_length", _length(reading), "max_length")
    mode = str(reading.get("truncation_mode", "keep_start"))
    why = "TRL cuts off the end, with the end token; ours keeps it" if mode == "keep_start" else ""
    value = "truncate_completion_right" if mode == "keep_start" else "truncate_prompt_left"
    reading.put("tokenization.over_length", value, "truncation_mode", why=why, differs=bool(why))
    _put_format(reading, request)
    strategy = str(reading.get("packing_strategy", "bfd"))
    if reading.flag("packing"):
        reading.put("training.batching.kind", "packed", "packing")
        if strategy == "wrapped":
            reading.refuse("packing_strategy", "rows cut at the ends of bins", "packing_strategy: bfd", nearest=True)
        else:
            reading.same("packing_strategy", why="whole rows in bins")
        reading.none("padding_free", why="rows are packed")
    else:
        reading.same("packing", "packing_strategy", why="off")
        if reading.flag("padding_free"):
            reading.put("training.batching.kind", "padding_free", "padding_free")
        else:
            reading.same("padding_free", why="off")
    reading.none("eval_packing", why=reasons.EVALUATION)


def _put_format(reading: Reading, request: Request) -> None:
    """Format and mask, which follow from the columns of the rows: messages, prompt and completion, or text."""
    path = reading.get("chat_template_path")
    file = request.found(str(path)) if path else None
    if path and (file is None or file.is_dir()):
        reading.refuse("chat_template_path", "the template of another model", "tokenization.format.template_file: its chat_template.jinja")
    elif file:
        reading.put("tokenization.format.template_file", request.shown(file), "chat_template_path")
    else:
        reading.same("chat_template_path", why="the tokenizer's own template")
    rows = _first_rows(reading, request)
    known = [row for _, row in rows if row is not None]
    texts = [task for task, row in rows if row and not {"messages", "prompt"} & row.keys()]
    common.put_text_evaluation(reading.draft, texts, [task for task, _ in rows])
    messages = [row for row in known if "messages" in row or isinstance(row.get("prompt"), list)]
    completion, assistant = reading.get("completion_only_loss"), reading.flag("assistant_only_loss")
    told = ["the columns of the first row" if known else "rows with messages"]
    remark = "" if known else 'for rows with a text, or with a prompt and a completion as texts: kind = "plain"'
    if known and not messages:
        reading.draft.set("tokenization.format.kind", "plain", told)
    else:
        reading.draft.set("tokenization.format.kind", "chat", told, remark)
    if assistant:
        reading.put("tokenization.mask.kind", "assistant", "assistant_only_loss")
        reading.same("completion_only_loss", why="assistant_only_loss decides")
        return
    reading.same("assistant_only_loss", why="off")
    whole = completion is False or (completion is None and any("messages" in row for row in messages))
    unsure = "" if known or completion is not None else 'of rows with messages TRL learns every token; for them, mask = "full"'
    reading.put("tokenization.mask.kind", "full" if whole else "completion", "completion_only_loss", why=unsure, differs=bool(unsure))


def _put_method(reading: Reading) -> None:
    method = "training.method"
    four, eight = reading.flag("load_in_4bit"), reading.flag("load_in_8bit")
    if four and eight:
        reading.conflict("load_in_4bit", "load_in_8bit", hint="keep one of them")
    adapters = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora", "use_dora")
    quantised = ("bnb_4bit_quant_type", "use_bnb_nested_quant")
    if not reading.flag("use_peft"):
        reading.put(f"{method}.kind", "full", "use_peft")
        if four or eight:
            reading.refuse("load_in_4bit" if four else "load_in_8bit", "training of quantised weights in full", "use_peft: true")
        reading.none(*adapters, *quantised, why="no adapter is trained: use_peft is false")
        for key in ("load_in_4bit", "load_in_8bit"):
            if not reading.flag(key):
                reading.same(key, why="no quantisation")
        return
    reading.put(f"{method}.kind", "qlora" if four or eight else "lora", "use_peft", "load_in_4bit", "load_in_8bit")
    if four or eight:
        reading.put(f"{method}.bits", 4 if four else 8, "load_in_4bit" if four else "load_in_8bit")
    if four:
        reading.put(f"{method}.quant_type", str(reading.get("bnb_4bit_quant_type", "nf4")), "bnb_4bit_quant_type")
        reading.put(f"{method}.double_quant", reading.flag("use_bnb_nested_quant"), "use_bnb_nested_quant")
        common.put_compute_dtype(reading.draft)
    else:
        reading.none(*quantised, why="no 4 bits")
    reading.put(f"{method}.r", reading.integer("lora_r", 16), "lora_r")
    reading.put(f"{method}.lora_alpha", reading.integer("lora_alpha", 32), "lora_alpha")
    reading.put(f"{method}.lora_dropout", float(reading.number("lora_dropout", 0.05) or 0.0), "lora_dropout")
    modules = reading.names("lora_target_modules")
    if modules:
        common.put_target_modules(reading, "lora_target_modules", modules == ("all-linear",), () if modules == ("all-linear",) else modules)
    else:
        why = "not set: peft chooses layers by the model's type, such as q_proj and v_proj"
        reading.put(f"{method}.target_modules", ("q_proj", "v_proj"), "lora_target_modules", why=why, differs=True)
    reading.put(f"{method}.use_rslora", reading.flag("use_rslora"), "use_rslora")
    reading.put(f"{method}.use_dora", reading.flag("use_dora"), "use_dora")
    if reading.given("lora_modules_to_save"):
        reading.put(f"{method}.modules_to_save", reading.names("lora_modules_to_save"), "lora_modules_to_save")
    else:
        reading.same("lora_modules_to_save", why="none")
