"""LLaMA-Factory's configurations, with its dataset_info.json: what each key means in a spec.

Facts are those of LLaMA-Factory 0.9.6 (github.com/hiyouga/LLaMA-Factory): src/llamafactory/hparams for names and defaults,
`data/parser.py`, `data/converter.py` and `data/processor` for what becomes of rows, and transformers' training arguments.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.errors import Problem, did_you_mean
from engine.importing import common, documents, reasons
from engine.importing.common import Request
from engine.importing.documents import Document
from engine.importing.preferences import put_dpo, put_kto, put_pairs, put_strength, settle_pairs
from engine.importing.reading import Draft, Reading, Refusal
from engine.importing.rows import put_rows, task_name
from engine.importing.schemas import listed, names, version
from engine.importing.training_arguments import REFUSED as ARGUMENTS_REFUSED
from engine.importing.training_arguments import WITHOUT_MEANING as ARGUMENTS_WITHOUT_MEANING
from engine.importing.training_arguments import put_arguments
from engine.spec.tree import Node
from stages.foreign import formats

TOOL = "llamafactory"

_EXPORT = "add a section [merge] to the spec"
_SERVING = "of inference"

WITHOUT_MEANING: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("media_dir", "streaming", "buffer_size", "overwrite_cache", "preprocessing_batch_size", "preprocessing_num_workers"),
            *("data_shared_file_system", "tokenized_path", "cache_dir", "use_fast_tokenizer", "split_special_tokens", "trust_remote_code"),
            *("hf_hub_token", "ms_hub_token", "om_hub_token", "ignore_pad_token_for_loss"),
        ),
        reasons.LOADER,
    ),
    **dict.fromkeys(
        (
            *("low_cpu_mem_usage", "use_unsloth", "use_unsloth_gc", "use_reentrant_gc", "use_v1_kernels", "offload_folder"),
            *("quantization_device_map", "upcast_layernorm", "upcast_lmhead_output", "ray_num_workers", "ray_init_kwargs", "master_addr"),
            *("master_port", "use_hyper_parallel", "hyper_parallel_args", "hyper_parallel_cp_size", "use_megatron_bridge", "use_mca"),
            *("fp8_backend", "fp8_enable_fsdp_float8_all_gather", "moe_aux_loss_coef", "print_param_status"),
        ),
        reasons.SPEED,
    ),
    **dict.fromkeys(
        (
            *("enable_torch_profiler", "profiler_output_dir", "profiler_wait_steps", "profiler_warmup_steps", "profiler_active_steps"),
            *("profiler_repeat", "profiler_record_shapes", "profiler_profile_memory", "profiler_with_stack", "profile_modules"),
            *("plot_loss", "include_effective_tokens_per_second", "compute_accuracy"),
        ),
        reasons.LOGGING,
    ),
    **dict.fromkeys(
        (
            *("export_dir", "export_size", "export_device", "export_quantization_bit", "export_quantization_dataset"),
            *("export_quantization_nsamples", "export_quantization_maxlen", "export_legacy_format", "export_hub_model_id"),
        ),
        _EXPORT,
    ),
    **dict.fromkeys(
        (
            *("infer_backend", "infer_dtype", "use_kv_cache", "vllm_maxlen", "vllm_gpu_util", "vllm_enforce_eager", "vllm_max_lora_rank"),
            *("vllm_config", "sglang_maxlen", "sglang_mem_fraction", "sglang_tp_size", "sglang_config", "sglang_lora_backend"),
            *("do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "repetition_penalty", "length_penalty"),
            *("skip_special_tokens", "eval_num_beams", "adapter_folder"),
        ),
        _SERVING,
    ),
    **dict.fromkeys(
        (
            *("use_swanlab", "swanlab_project", "swanlab_workspace", "swanlab_run_name", "swanlab_mode", "swanlab_api_key"),
            *("swanlab_logdir", "swanlab_lark_webhook_url", "swanlab_lark_secret"),
        ),
        reasons.TRACKING,
    ),
    **dict.fromkeys(
        (
            *("ppo_buffer_size", "ppo_epochs", "ppo_score_norm", "ppo_target"),
            *("ppo_whiten_rewards", "ref_model_quantization_bit", "reward_model", "reward_model_adapters"),
            *("reward_model_quantization_bit", "reward_model_type", "freeze_trainable_layers", "freeze_trainable_modules"),
            *("freeze_extra_modules", "module_dropout", "oft_rank", "oft_block_size", "oft_target", "loraplus_lr_embedding"),
            *("galore_target", "galore_rank", "galore_update_interval", "galore_scale", "galore_proj_type", "galore_layerwise"),
            *("apollo_target", "apollo_rank", "apollo_update_interval", "apollo_scale", "apollo_proj", "apollo_proj_type"),
            *("apollo_scale_type", "apollo_layerwise", "apollo_scale_front", "badam_mode", "badam_start_block", "badam_switch_mode"),
            *("badam_switch_interval", "badam_update_ratio", "badam_mask_mode", "badam_verbose", "asft_alpha", "eaft_alpha"),
            *("kt_cpu_activation", "kt_weight_path", "kt_non_expert_weight_path", "kt_expert_checkpoint_path", "kt_use_lora_experts"),
            *("kt_lora_expert_num", "kt_lora_expert_intermediate_size", "init_special_tokens", "new_special_tokens_config"),
            *("eval_on_each_dataset", "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches"),
            *("video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen", "use_audio_in_video", "audio_sampling_rate"),
            *("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model", "pissa_convert"),
        ),
        reasons.OFF,
    ),
    "resize_vocab": "the embeddings are resized if tokens are added",
    "max_new_tokens": "tasks.<name>.max_new_tokens, of the evaluation",
}
"""Keys that have no meaning in a spec, and why."""

REFUSED: Mapping[str, Refusal] = {
    "use_llama_pro": Refusal("LLaMA Pro: new blocks", 'training.method = "full"'),
    "use_galore": Refusal("GaLore", 'training.method = "lora", or optimizer = "adamw_8bit"', nearest=True),
    "use_apollo": Refusal("APOLLO", 'training.optimizer = "adamw_8bit"', nearest=True),
    "use_badam": Refusal("BAdam: a block at a time", 'training.method = "lora"'),
    "use_adam_mini": Refusal("the optimizer Adam-mini", 'training.optimizer = "adamw_8bit"', nearest=True),
    "use_muon": Refusal("the optimizer Muon", 'training.optimizer = "adamw"', nearest=True),
    "use_dft_loss": Refusal("the loss DFT", "the cross entropy", nearest=True),
    "use_asft_loss": Refusal("the loss ASFT", "the cross entropy", nearest=True),
    "use_eaft_loss": Refusal("the loss EAFT", "the cross entropy", nearest=True),
    "loraplus_lr_ratio": Refusal("LoRA+: two learning rates", "one learning rate", nearest=True),
    "mixture_of_depths": Refusal("a mixture of depths", "the model as it is"),
    "shift_attn": Refusal("shifted sparse attention", "[model] rope_scaling and a longer tokenization.max_length"),
    "train_from_scratch": Refusal("random weights in a known architecture", "[model] architecture"),
    "use_kt": Refusal("KTransformers: experts in main memory", "resources.zero with offloading"),
    "create_new_adapter": Refusal("a new adapter on top of another", "[merge] in one spec, and [model] experiment in the next"),
    "fp8": Refusal("training in FP8", 'training.precision = "bfloat16"', nearest=True),
    "disable_shuffling": Refusal("rows in the order of the files", "a mixture is shuffled", nearest=True),
    "tool_format": Refusal("another form of tool calls", "tool calls as the chat template writes them", nearest=True),
    "preserve_thinking": Refusal("reasoning in earlier turns", 'mask = { kind = "assistant", unroll = "auto" }', nearest=True),
}
"""Keys that ask for what a spec cannot say."""

HANDLED = frozenset(
    (
        *("model_name_or_path", "model_revision", "adapter_name_or_path", "add_tokens", "add_special_tokens", "rope_scaling"),
        *("flash_attn", "enable_liger_kernel", "disable_gradient_checkpointing", "quantization_method", "quantization_bit"),
        *("quantization_type", "double_quantization", "template", "dataset", "eval_dataset", "dataset_dir", "cutoff_len"),
        *("train_on_prompt", "mask_history", "mix_strategy", "interleave_probs", "max_samples", "val_size", "packing", "neat_packing"),
        *("default_system", "enable_thinking", "stage", "finetuning_type", "lora_alpha", "lora_dropout", "lora_rank", "lora_target"),
        *("pref_beta", "pref_ftx", "pref_bco_weight", "pref_loss", "dpo_label_smoothing", "simpo_gamma", "ld_alpha", "ref_model"),
        *("kto_chosen_weight", "kto_rejected_weight"),
        *(
            "ref_model_adapters",
            "use_rslora",
            "use_dora",
            "pissa_init",
            "pissa_iter",
            "additional_target",
            "pure_bf16",
            "early_stopping_steps",
        ),
    )
)
"""Keys that this module reads one by one; `training_arguments` reads those of transformers."""

_OTHER_FILES = {
    "model": "the configuration of LLaMA-Factory's v1 trainer",
    "compute_environment": "a configuration of accelerate launch, which says how processes start: set resources.devices and resources.zero",
}


def read(request: Request) -> Draft:
    """The experiment of a LLaMA-Factory configuration; its problems and warnings are in the draft."""
    draft = Draft(TOOL)
    reading = Reading(draft, request.document.root, names(TOOL), request.nearest)
    for key, what in _OTHER_FILES.items():
        if reading.given(key):
            hint = "a configuration for `llamafactory-cli train`, with model_name_or_path and stage"
            draft.problems.append(Problem(f"this is {what}", reading.node.content[key].key, hint))
            return draft
    if not reading.flag("do_train") and any(map(reading.given, ("export_dir", "infer_backend", "do_predict"))):
        key = next(k for k in ("export_dir", "infer_backend", "do_predict") if reading.given(k))
        whats = {"export_dir": "an export of merged weights", "infer_backend": "a configuration for chats and servers"}
        hints = {"export_dir": "a spec with [model] adapter and [merge]", "infer_backend": "engine chat MODEL"}
        said = whats.get(key, "an evaluation without a training")
        problem = Problem(
            f"{key}: {said} cannot be honoured",
            reading.node.content[key].key,
            hints.get(key, "a spec with [model] adapter and [evaluation]"),
        )
        draft.problems.append(problem)
        return draft
    common.put_name(reading, request)
    _put_model(reading, request)
    stage = _put_stage(reading)
    common.put_epochs(reading, "num_train_epochs", "max_steps", 3.0)
    put_arguments(reading, request)
    _put_data(reading, request, stage)
    _put_method(reading)
    _put_rest(reading)
    _put_objective(reading, stage)
    reading.without_meaning({key: why for key, why in ARGUMENTS_WITHOUT_MEANING.items() if key not in HANDLED})
    reading.without_meaning(dict.fromkeys(listed(TOOL, "megatron_keys"), "of Megatron, which changes how fast the same result is computed"))
    reading.without_meaning(WITHOUT_MEANING)
    reading.refusals(ARGUMENTS_REFUSED)
    reading.refusals(REFUSED)
    for key in [*reading.strangers()]:
        newer = f"known keys are those of LLaMA-Factory {version(TOOL)}; leave out what a newer version has added"
        reading.unknown(key, "is no key of LLaMA-Factory, which would stop at it", reading.known, newer)
    reading.rest()
    common.settle(draft)
    return draft


def _put_model(reading: Reading, request: Request) -> None:
    if reading.given("model_name_or_path"):
        common.put_model(reading, request, "model_name_or_path", "model_revision")
    else:
        reading.draft.problems.append(Problem("model_name_or_path is missing", reading.node.key, "it names the model to train"))
        reading.none("model_name_or_path", "model_revision", why="there is no model")
    adapters = reading.names("adapter_name_or_path")
    if len(adapters) > 1:
        reading.refuse(
            "adapter_name_or_path", "several adapters under one training", "[merge] them in one spec, and train the next from it"
        )
    elif adapters:
        local = request.found(adapters[0])
        reading.put("model.adapter", request.shown(local) if local else adapters[0], "adapter_name_or_path")
    else:
        reading.same("adapter_name_or_path", why="a new adapter")
    scaling = reading.get("rope_scaling")
    if scaling in ("linear", "dynamic", "yarn", "llama3"):
        why = "LLaMA-Factory computes the factor from cutoff_len and the model's context; set it"
        reading.put("model.rope_scaling", {"kind": scaling, "factor": 2.0}, "rope_scaling", why=why, differs=True)
    elif scaling:
        reading.refuse("rope_scaling", f"the scaling {scaling}", "linear, dynamic, yarn or llama3")
    else:
        reading.same("rope_scaling", why="none")
    added = (*reading.names("add_tokens"), *reading.names("add_special_tokens"))
    if added:
        reading.put("tokenization.special_tokens", tuple(dict.fromkeys(added)), "add_tokens", "add_special_tokens")
    else:
        reading.same("add_tokens", "add_special_tokens", why="none")


_ON_ANSWERS = ("dpo", "kto")
"""The stages of trainings on preferences."""


def _put_stage(reading: Reading) -> str:
    stage = str(reading.get("stage", "sft"))
    if stage == "dpo":
        reading.taken("stage", ours="training.objective", why="the better one of two answers is learned")
    elif stage == "kto":
        why = "LLaMA-Factory estimates the divergence in each micro-batch; here there is one for the global batch"
        reading.put("training.objective.kind", "kto", "stage", why=why, differs=True)
    elif stage in ("sft", "pt"):
        reading.taken("stage", ours="tokenization.mask", why="answers are learned" if stage == "sft" else "texts are learned")
    else:
        what = {"rm": "a reward model", "ppo": "training on rewards"}.get(stage, "the stage")
        reading.refuse("stage", f"{what} ({stage})", "stage: dpo with pairs of answers, or stage: sft with the better ones")
    return stage


_PAIR_REFUSED: Mapping[str, Refusal] = {
    "pref_ftx": Refusal("the cross entropy of the chosen answers in addition to the loss", "pref_loss: orpo", off=(0, 0.0), nearest=True),
    "pref_bco_weight": Refusal("BCO in addition to DPO", "pref_loss: sigmoid alone", off=(0, 0.0), nearest=True),
    "ld_alpha": Refusal("DPO that weighs tokens beyond the shorter answer less", "every token alike", nearest=True),
    "ref_model": Refusal("another reference model", "the model that the training starts from", nearest=True),
    "ref_model_adapters": Refusal("another reference model", "the model that the training starts from", nearest=True),
}


_OF_DPO = ("pref_bco_weight", "ld_alpha")
"""Refused keys that LLaMA-Factory reads in stage dpo alone."""


def _put_objective(reading: Reading, stage: str) -> None:
    """The loss: cross entropy, or one of pairs or of judged answers."""
    keys = ("pref_loss", "pref_beta", "simpo_gamma", "dpo_label_smoothing", "kto_chosen_weight", "kto_rejected_weight")
    if stage == "kto":
        put_kto(reading, "pref_beta", "kto_chosen_weight", "kto_rejected_weight")
        settle_pairs(reading, "LLaMA-Factory", "cutoff_len", "LLaMA-Factory cuts questions and answers; here long rows are left out")
        reading.refusals({key: refusal for key, refusal in _PAIR_REFUSED.items() if key not in _OF_DPO})
        reading.none(*(key for key in (*keys, *_OF_DPO) if key not in reading.draft.entries), why="not of stage: kto")
        return
    if stage != "dpo":
        reading.none(*keys, *_PAIR_REFUSED, why=reasons.OFF)
        return
    loss = str(reading.get("pref_loss", "sigmoid"))
    if loss == "orpo":
        why = "LLaMA-Factory takes the mean of the cross entropies of pairs; ours counts every token alike"
        reading.put("training.objective.kind", "orpo", "pref_loss", why=why, differs=True)
        put_strength(reading, "weight", "pref_beta", 0.1)
    elif loss == "simpo":
        reading.put("training.objective.kind", "simpo", "pref_loss")
        put_strength(reading, "beta", "pref_beta", 0.1)
        reading.put("training.objective.margin", float(reading.number("simpo_gamma", 0.5) or 0.0), "simpo_gamma")
    else:
        put_dpo(reading, (loss,), "pref_loss", "pref_beta", "dpo_label_smoothing")
    settle_pairs(reading, "LLaMA-Factory", "cutoff_len", "LLaMA-Factory cuts questions and answers; here long pairs are left out")
    reading.refusals(_PAIR_REFUSED)
    reading.none(*(key for key in keys if key not in reading.draft.entries), why=f"not of pref_loss: {loss}")


def _dataset_info(reading: Reading, request: Request) -> Document | None:
    """The document that defines the data sets: given with the configuration, or in `dataset_dir`."""
    given = [one for one in request.documents[1:] if one.path.suffix == ".json"]
    if given:
        return given[0]
    folder = str(reading.get("dataset_dir", "data"))
    if folder == "ONLINE" or folder.startswith("REMOTE:"):
        reading.refuse("dataset_dir", f"definitions of data sets at {folder}", "the dataset_info.json as a further FILE")
        return None
    found = request.found(f"{folder}/dataset_info.json")
    if found is None:
        what = f"the definitions of the data sets, {folder}/dataset_info.json, are not here"
        where = reading.child("dataset_dir") or reading.child("dataset") or reading.node
        reading.draft.problems.append(Problem(what, where.value, "give the file too: engine import CONFIG dataset_info.json"))
        return None
    return documents.read(found, request.shown(found))


def _put_data(reading: Reading, request: Request, stage: str) -> None:
    reading.put("tokenization.max_length", reading.integer("cutoff_len", 2048), "cutoff_len")
    wanted, held = reading.names("dataset"), reading.names("eval_dataset")
    if not wanted:
        reading.draft.problems.append(Problem("dataset is missing", reading.node.key, "it names data sets of dataset_info.json"))
    info = _dataset_info(reading, request) if wanted else None
    reading.taken("dataset_dir", ours="tasks.<name>.source", why="where dataset_info.json is")
    reading.taken("dataset", ours="tasks")
    tasks: list[str] = []
    folder = info.path.parent if info else Path()
    for name in dict.fromkeys((*wanted, *held)) if info else ():
        assert info is not None
        node = info.root.child(name)
        key = "dataset" if name in wanted else "eval_dataset"
        if node is None or not isinstance(node.content, dict):
            place = reading.child(key)
            assert place is not None
            known = list(info.root.content)
            reading.draft.problems.append(Problem(f"{info.name} defines no data set '{name}'", place.value, did_you_mean(name, known)))
            continue
        if name in wanted:
            tasks.append(_put_dataset(reading, request, node, name, tasks, stage, folder, info))
            reading.draft.datasets[tasks[-1]] = node.plain()
    reading.draft.set("mixture.tasks", tuple(tasks), ["dataset"])
    _put_mixture(reading, tasks)
    _put_splits(reading, request, tasks, wanted, held, info)
    common.put_unseen_rows(reading.draft, tasks)
    common.put_text_evaluation(reading.draft, tasks if stage == "pt" else (), tasks)
    _put_formats(reading, stage)


def _put_dataset(
    reading: Reading, request: Request, node: Node, name: str, before: list[str], stage: str, folder: Path, info: Document
) -> str:
    """The task of one data set of dataset_info.json; returns its name."""
    inner = reading.inside(node, listed(TOOL, "dataset_keys"), f"{info.path.name}: {name}")
    task = ("tasks", task_name(name, before))
    _put_source(inner, request, (*task, "source"), folder)
    ranking = inner.flag("ranking")
    if ranking and stage == "dpo":
        inner.taken("ranking", ours=f"tasks.{task[1]}.layout", why="pairs")
    elif ranking and stage in ("sft", "pt", "kto"):
        inner.refuse("ranking", f"pairs of answers in stage {stage}, at which LLaMA-Factory stops", "stage: dpo")
    elif stage == "dpo":
        inner.refuse("ranking", "answers that are no pairs in stage dpo, at which LLaMA-Factory stops", "ranking: true, or stage: sft")
    elif ranking:
        inner.none("ranking", why=f"of the stage {stage}, which is refused")
    else:
        inner.same("ranking", why="no pairs")
    if (samples := inner.integer("num_samples")) is not None:
        why = "rows chosen by their content here, at random there; rows are not repeated"
        inner.put((*task, "source", "sample"), {"rows": samples}, "num_samples", why=why, differs=True)
    else:
        inner.same("num_samples", why="all rows")
    limit = reading.integer("max_samples")
    if limit:
        reading.put((*task, "source", "limit"), limit, "max_samples")
    else:
        reading.same("max_samples", why="all rows")
    formatting = str(inner.get("formatting", "alpaca"))
    columns = _inner(inner, "columns", "column_keys")
    tags = _inner(inner, "tags", "tag_keys")
    if columns and formatting in ("alpaca", "sharegpt", "openai") and (ranking or (stage == "kto" and columns.given("kto_tag"))):
        _put_pairs(inner, columns, tags, task, formatting, judged=not ranking)
    elif stage == "kto":
        what = f"{inner.prefix}columns names no kto_tag, without which LLaMA-Factory drops every row in stage kto"
        reading.draft.problems.append(Problem(what, inner.node.key, "kto_tag: the column that says whether an answer is desirable"))
    elif formatting == "alpaca":
        _put_alpaca(inner, columns, task, stage)
        if tags:
            tags.none(*listed(TOOL, "tag_keys"), why="of data sets with formatting: sharegpt")
    elif formatting in ("sharegpt", "openai"):
        _put_sharegpt(inner, columns, tags, task, formatting)
    else:
        inner.refuse("formatting", f"the formatting {formatting}", "alpaca, sharegpt or openai")
    for part in (inner, columns, tags):
        for key in [*part.strangers()] if part else ():
            part.ignored(key, f"its schema (version {version(TOOL)}) has no such key here", part.known) if part else None
    inner.rest()
    return task[1]


def _inner(reading: Reading, key: str, names_of: str) -> Reading | None:
    node = reading.child(key)
    return reading.inside(node, listed(TOOL, names_of), key) if node is not None and isinstance(node.content, dict) else None


def _put_source(reading: Reading, request: Request, source: tuple[str, ...], folder: Path) -> None:
    """Where the rows are: a file next to dataset_info.json, or a data set on the hub."""
    if reading.given("hf_hub_url"):
        keys = {"path": "hf_hub_url", "name": "subset", "split": "split"}
        put_rows(reading, request, source, keys)
        reading.none("ms_hub_url", "om_hub_url", "file_name", "script_url", "cloud_file_name", why="hf_hub_url comes first")
    elif reading.given("file_name") and not any(map(reading.given, ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"))):
        given = folder / str(reading.get("file_name"))
        node = reading.node.content["file_name"]
        shown = Node({**reading.node.content, "file_name": Node(str(given), node.key, node.value)}, reading.node.key, reading.node.value)
        put_rows(_with(reading, shown), request, source, {"path": "file_name", "name": "subset", "split": "split"})
        reading.none("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", why="the rows are in file_name")
    else:
        key = next((k for k in ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name") if reading.given(k)), "file_name")
        reading.refuse(key, f"rows under {key}", "hf_hub_url, or a file under file_name")
    if reading.given("folder"):
        reading.refuse("folder", "a folder of a data set on the hub", "download it; source.path takes files and patterns")
    else:
        reading.same("folder", why="none")


def _with(reading: Reading, node: Node) -> Reading:
    return Reading(reading.draft, node, reading.known, reading.nearest, reading.prefix)


def _put_alpaca(reading: Reading, columns: Reading | None, task: tuple[str, str], stage: str) -> None:
    """Rows with an instruction, an input and an answer, joined by one line break (not two, as in the layout `instruction`)."""
    given = columns.node.content if columns else {}

    def name(key: str, default: str | None) -> str | None:
        """The column under KEY; of data sets with `columns`, only those that it names."""
        return str(columns.get(key)) if columns and columns.given(key) else None if given else default

    asked, query, answer = name("prompt", "instruction"), name("query", "input"), name("response", "output")
    system, history = name("system", None), name("history", None)
    reading.taken("formatting", ours=f"tasks.{task[1]}.prompts", why="alpaca")
    source = (*task, "source", "columns")
    if columns:
        _refuse_media(columns)
        columns.none("messages", why="of data sets with formatting: sharegpt")
        for key in ("chosen", "rejected", "kto_tag"):
            columns.refuse(key, "preferences", "ranking: true with stage: dpo") if columns.given(key) else columns.same(key, why="none")
    if stage == "pt":
        _take(columns, "prompt", (*source, "text"), asked or "text", "text")
        reading.draft.set((*task, "layout", "kind"), "text", ["stage"])
        for key in ("query", "response", "system", "history", "tools"):
            columns.none(key, why="stage pt reads the prompt alone") if columns else None
        return
    for key, column in (("prompt", asked), ("query", query), ("response", answer), ("system", system), ("history", history)):
        if column is None and columns:
            columns.same(key, why="no such column")
    parts = [f"{{{{ {_name(c, source, reading, columns, k)} or '' }}}}" for k, c in (("prompt", asked), ("query", query)) if c]
    if asked and query:
        first, second = (_name(c, source, reading, columns, k) for k, c in (("prompt", asked), ("query", query)))
        missing = f"{second} is defined and {second}"
        line, rest = f"{{% if {missing} %}}\n{{% endif %}}", f"{{% if {missing} %}}{{{{ {second} }}}}{{% endif %}}"
        text = f"{{% if {first} %}}{{{{ {first} }}}}{line}{{% endif %}}{rest}"
    else:
        text = "".join(parts)
    keys = [f"{reading.prefix}columns"] if columns else [f"{reading.prefix}formatting (alpaca)"]
    reading.draft.set((*task, "prompts"), (text,), keys)
    if history:
        assert columns is not None
        hint = "the same rows with messages (formatting: sharegpt)"
        columns.refuse("history", "earlier turns and a question", hint)
    if system and columns:
        columns.put((*task, "system"), f"{{{{ {_name(system, source, reading, columns, 'system')} or '' }}}}", "system")
    if columns and columns.given("tools"):
        columns.refuse("tools", "tools and a question", "the same rows with messages (formatting: sharegpt)")
    elif columns:
        columns.same("tools", why="no such column")
    if answer is None:
        reading.draft.problems.append(Problem(f"{reading.prefix}columns names no response", reading.node.key, "a training needs answers"))
    elif columns and columns.given("response"):
        columns.put((*task, "teacher"), {"kind": "gold", "column": answer}, "response")
    else:
        reading.draft.set((*task, "teacher"), {"kind": "gold", "column": answer}, keys)


def _put_pairs(
    reading: Reading, columns: Reading, tags: Reading | None, task: tuple[str, str], formatting: str, judged: bool = False
) -> None:
    """Rows with a question or a conversation, and two answers to it; JUDGED: one answer, and whether it is desirable."""
    _refuse_media(columns)
    read = {"response": "completion", "kto_tag": "label"} if judged else {"chosen": "chosen", "rejected": "rejected"}
    read |= {"system": "system", "tools": "tools"}
    given = {ours: str(columns.get(key)) for key, ours in read.items() if columns.given(key)}
    if formatting == "alpaca":
        asked, query = (str(columns.get(key)) if columns.given(key) else None for key in ("prompt", "query"))
        first, second = (formats.column(name) if name else "none" for name in (asked, query))
        given["prompt"] = f"({first} or '') ~ ('\\n' if {first} and {second} else '') ~ ({second} or '')" if query else first
        # The layout itself would join a column `input` behind an empty line.
        given |= {"input": "none"} if query == "input" else {}
        given |= {"instruction": "none"} if judged and "instruction" in (asked, query) else {}
        if columns.given("history"):
            given["history"] = str(columns.get("history"))
        columns.none("messages", *(() if judged else ("response",)), why="of data sets with other columns")
        if judged and not columns.given("response"):
            reading.draft.problems.append(Problem(f"{reading.prefix}columns names no response", reading.node.key, "the judged answers"))
    else:
        given.pop("completion", None)
        given["conversations"] = str(columns.get("messages", "conversations"))
        columns.none("prompt", "query", "response", "history", why="of data sets with formatting: alpaca")
        if tags:
            _put_tags(tags, formatting)
    if columns.given("kto_tag") and not judged:
        columns.refuse("kto_tag", "judged single answers", "pairs of answers", nearest=True)
    put_pairs(reading, task, given, [f"{reading.prefix}columns"], "unpaired_preference" if judged else "preference")
    reading.taken("formatting", ours=f"tasks.{task[1]}.layout")
    for key in columns.known - (set() if judged else {"kto_tag"}):
        columns.taken(key, ours=f"tasks.{task[1]}.source.columns") if columns.given(key) else columns.same(key, why="no such column")


def _name(column: str, source: tuple[str, ...], reading: Reading, columns: Reading | None, key: str) -> str:
    """COLUMN as a name in templates; another name for one that is no identifier."""
    if columns and columns.given(key):
        columns.taken(key, ours=f"tasks.{source[1]}.prompts")
    if column.isidentifier():
        return column
    reading.draft.set((*source, key), column, [f"{reading.prefix}columns.{key}"])
    return key


def _take(columns: Reading | None, key: str, path: tuple[str, ...], column: str, ours: str) -> None:
    if column == ours:
        columns.same(key, why=f"the column {ours}") if columns else None
    elif columns and columns.given(key):
        columns.put(path, column, key)


def _refuse_media(columns: Reading) -> None:
    for key in ("images", "videos", "audios"):
        if columns.given(key):
            columns.refuse(key, f"rows with {key}", "rows of text alone")
        else:
            columns.same(key, why="none")


_TAGS = {
    "role_tag": ("from", ("from", "role")),
    "content_tag": ("value", ("value", "content", "text")),
    "user_tag": ("human", ("human", "user", "prompter")),
    "assistant_tag": ("gpt", ("gpt", "assistant", "chatgpt", "model")),
    "observation_tag": ("observation", ("observation", "tool", "function_response", "tool_response")),
    "function_tag": ("function_call", ("function_call", "tool_call")),
    "system_tag": ("system", ("system", "developer")),
}
"""The default of each tag, and the names that a spec recognises."""


def _put_sharegpt(reading: Reading, columns: Reading | None, tags: Reading | None, task: tuple[str, str], formatting: str) -> None:
    """Rows with conversations."""
    source = (*task, "source", "columns")
    column = str(columns.get("messages")) if columns and columns.given("messages") else "conversations"
    kind = "messages" if column == "messages" else "conversations"
    reading.put((*task, "layout", "kind"), kind, "formatting")
    if columns:
        _refuse_media(columns)
        if column not in ("messages", "conversations"):
            columns.put((*source, "conversations"), column, "messages")
        columns.taken("messages", ours=f"tasks.{task[1]}.layout")
        for key in ("prompt", "query", "response", "history"):
            columns.none(key, why="of data sets with formatting: alpaca")
        for key in ("chosen", "rejected", "kto_tag"):
            columns.refuse(key, "preferences", "ranking: true with stage: dpo") if columns.given(key) else columns.same(key, why="none")
        for key in ("system", "tools"):
            if columns.given(key) and str(columns.get(key)) != key:
                columns.put((*source, key), str(columns.get(key)), key)
            else:
                columns.same(key, why=f"the column {key}")
    if tags:
        _put_tags(tags, formatting)


def _put_tags(tags: Reading, formatting: str) -> None:
    """How messages name their parts and roles."""
    for key, (default, known) in _TAGS.items():
        value = str(tags.get(key, default))
        if value in known or (formatting == "openai" and value == default):
            tags.same(key, why="these names are recognised")
        else:
            tags.refuse(key, f"messages with {value}", f"rename it in the rows: {', '.join(known)}")


def _put_mixture(reading: Reading, tasks: list[str]) -> None:
    strategy = str(reading.get("mix_strategy", "concat"))
    shares = reading.get("interleave_probs")
    if isinstance(shares, str):
        shares = tuple(share.strip() for share in shares.split(","))
    if strategy == "concat":
        reading.same("mix_strategy", why="every row of every task once per epoch")
        reading.none("interleave_probs", why="mix_strategy is concat") if shares else reading.same("interleave_probs", why="not set")
    elif shares and len(shares) == len(tasks):
        weights = {task: float(share) for task, share in zip(tasks, shares, strict=True)}
        why = "an epoch ends differently: no task is used up there, or each is"
        reading.put("mixture.sampler", {"kind": "weights", "weights": weights}, "interleave_probs", "mix_strategy", why=why, differs=True)
    else:
        why = "an epoch ends differently: with the first task that is used up there, or the last"
        reading.put("mixture.sampler", "equal", "mix_strategy", why=why, differs=True)
        reading.same("interleave_probs", why="not set")


def _put_splits(
    reading: Reading, request: Request, tasks: list[str], wanted: tuple[str, ...], held: tuple[str, ...], info: Document | None
) -> None:
    size = reading.number("val_size", 0.0) or 0.0
    if held and size > 1e-6:
        reading.conflict("eval_dataset", "val_size", hint="LLaMA-Factory takes one of them; remove the other")
    common.put_validation_rows(reading, "val_size", tasks, "LLaMA-Factory")
    reading.same("val_size", why="no rows are held out")
    if not held:
        reading.same("eval_dataset", why="none")
    elif set(held) == set(wanted) or len(held) != len(wanted):
        feature = "validation on the rows of the training" if set(held) & set(wanted) else "another number of validation data sets"
        reading.refuse(
            "eval_dataset", feature, "val_size: 0.05, or a test set for each data set: tasks.<name>.split.test_source", nearest=True
        )
    else:
        reading.taken("eval_dataset", ours="tasks.<name>.split.test_source")
        for task, name in zip(tasks, held, strict=False):
            node = info.root.child(name) if info else None
            if info is None or node is None:
                continue
            inner = reading.inside(node, listed(TOOL, "dataset_keys"), f"{info.path.name}: {name}")
            _put_source(inner, request, ("tasks", task, "split", "test_source"), info.path.parent)
            for key in ("formatting", "columns", "tags", "ranking", "num_samples"):
                inner.same(key, why="as in the data set")
            inner.rest()


def _put_formats(reading: Reading, stage: str) -> None:
    """Template, mask and lengths."""
    packing, neat = reading.get("packing"), reading.flag("neat_packing")
    packed = stage not in _ON_ANSWERS and (bool(packing) if packing is not None else stage == "pt" or neat)
    if packed:
        reading.put("training.batching.kind", "packed", "packing", "neat_packing")
        why = "" if neat else "LLaMA-Factory lets packed rows attend to each other without neat_packing; ours never do"
        reading.taken("packing", ours="training.batching", why=why, differs=bool(why))
    elif stage in _ON_ANSWERS:
        reading.none("packing", "neat_packing", why="trainings on preferences do not pack rows")
    else:
        reading.same("packing", "neat_packing", why="off")
    why = "LLaMA-Factory cuts question and answer in proportion, with the end token; ours keeps it"
    if packed and stage == "sft":
        reading.draft.set("tokenization.over_length", "drop", ["packing"])
    elif stage == "pt":
        reading.draft.set("tokenization.over_length", "split", ["stage"], "texts are packed and cut into blocks there")
    elif stage not in _ON_ANSWERS:
        reading.put("tokenization.over_length", "truncate_completion_right", "cutoff_len", why=why, differs=True)
    name = reading.get("template")
    system = reading.get("default_system")
    everything, last = reading.flag("train_on_prompt"), reading.flag("mask_history")
    if everything and last:
        reading.conflict("train_on_prompt", "mask_history", hint="keep one of them")
    if stage == "pt":
        reading.none("template", "default_system", "train_on_prompt", "mask_history", "enable_thinking", why="stage pt has no templates")
        return
    if name is None:
        why = "no template: LLaMA-Factory takes the tokenizer's own"
        reading.put("tokenization.format.kind", "chat", "template", why=why)
    elif name in formats.LLAMA_FACTORY:
        reading.draft.set("tokenization.format.kind", "chat", ["template"])
        text = formats.LLAMA_FACTORY[str(name)].template(str(system) if system is not None else None)
        reading.put("tokenization.format.template", text, "template")
    elif name == "empty":
        reading.put("tokenization.format.kind", "plain", "template")
    else:
        why = f"LLaMA-Factory brings its own template {name}; here it is the tokenizer's own"
        reading.put("tokenization.format.kind", "chat", "template", why=why, differs=True)
    if system is None:
        reading.same("default_system", why="the template's own")
    elif name in formats.LLAMA_FACTORY:
        reading.taken("default_system", ours="tokenization.format.template")
    else:
        reading.refuse("default_system", "another default of the system prompt", "tasks.<name>.system", nearest=True)
    if reading.get("enable_thinking", True) is False:
        reading.put("tokenization.format.variables", {"enable_thinking": False}, "enable_thinking")
    else:
        reading.same("enable_thinking", why="the template's default")
    if stage in _ON_ANSWERS:
        reading.none("train_on_prompt", "mask_history", why="of a training on preferences only the answers are learned")
    elif everything:
        reading.put("tokenization.mask.kind", "full", "train_on_prompt")
        reading.same("mask_history", why="everything is learned")
    else:
        reading.put("tokenization.mask.kind", "assistant", "train_on_prompt")
        if last:
            reading.put("tokenization.mask.turns", "last", "mask_history")
        else:
            reading.same("mask_history", why="every answer is learned")


def _put_method(reading: Reading) -> None:
    method = "training.method"
    kind = str(reading.get("finetuning_type", "lora"))
    adapters = (
        *("lora_alpha", "lora_dropout", "lora_rank", "lora_target", "use_rslora", "use_dora", "pissa_init", "pissa_iter"),
        *("additional_target", "quantization_bit", "quantization_type", "double_quantization", "quantization_method"),
    )
    if kind == "full":
        reading.put(f"{method}.kind", "full", "finetuning_type")
        if reading.given("quantization_bit"):
            reading.refuse("quantization_bit", "training of quantised weights in full", "finetuning_type: lora")
        for key in adapters:
            if key != "quantization_bit" or not reading.given(key):
                reading.none(key, why="no adapter is trained")
        return
    if kind != "lora":
        what = {"freeze": "training of some layers", "oft": "orthogonal updates (OFT)"}.get(kind, f"finetuning_type {kind}")
        reading.refuse("finetuning_type", what, "finetuning_type: lora", nearest=kind == "oft")
    bits = reading.integer("quantization_bit")
    how = str(reading.get("quantization_method", "bnb"))
    if bits and how not in ("bnb", "BNB"):
        reading.refuse("quantization_method", f"quantisation by {how}", "quantization_method: bnb")
    else:
        reading.same("quantization_method", why="bitsandbytes")
    reading.put(f"{method}.kind", "qlora" if bits else "lora", "finetuning_type", "quantization_bit")
    if bits in (4, 8):
        reading.put(f"{method}.bits", bits, "quantization_bit")
        if bits == 4:
            reading.put(f"{method}.quant_type", str(reading.get("quantization_type", "nf4")), "quantization_type")
            reading.put(f"{method}.double_quant", reading.flag("double_quantization", True), "double_quantization")
            common.put_compute_dtype(reading.draft)
    elif bits:
        reading.refuse("quantization_bit", f"{bits} bits", "quantization_bit: 4, or 8", nearest=True)
    reading.same("quantization_type", "double_quantization", "quantization_bit", why="no 4 bits")
    rank = reading.integer("lora_rank", 8) or 8
    reading.put(f"{method}.r", rank, "lora_rank")
    reading.put(f"{method}.lora_alpha", reading.integer("lora_alpha", 2 * rank), "lora_alpha", why="twice the rank, if it is not set")
    reading.put(f"{method}.lora_dropout", float(reading.number("lora_dropout", 0.0) or 0.0), "lora_dropout")
    targets = reading.names("lora_target") or ("all",)
    common.put_target_modules(reading, "lora_target", targets == ("all",), () if targets == ("all",) else targets)
    reading.put(f"{method}.use_rslora", reading.flag("use_rslora"), "use_rslora")
    reading.put(f"{method}.use_dora", reading.flag("use_dora"), "use_dora")
    if reading.flag("pissa_init"):
        steps = reading.integer("pissa_iter", 16)
        if steps in (-1, 16):
            reading.put(f"{method}.init_lora_weights", "pissa" if steps == -1 else "pissa_niter_16", "pissa_init", "pissa_iter")
        else:
            reading.refuse("pissa_iter", f"{steps} iterations of PiSSA", "pissa_iter: 16, or -1", nearest=True)
            reading.draft.set(f"{method}.init_lora_weights", "pissa_niter_16", ["pissa_init"])
            reading.taken("pissa_init", ours=f"{method}.init_lora_weights")
    else:
        reading.same("pissa_init", "pissa_iter", why="peft's default")
    if reading.given("additional_target"):
        reading.put(f"{method}.modules_to_save", reading.names("additional_target"), "additional_target")
    else:
        reading.same("additional_target", why="none")


def _put_rest(reading: Reading) -> None:
    """What LLaMA-Factory calls otherwise than transformers does."""
    chosen = reading.get("flash_attn", "auto")
    common.put_attention(reading, "flash_attn", str(chosen) if not isinstance(chosen, bool) else "auto")
    if reading.flag("enable_liger_kernel"):
        reading.put("resources.kernels", "liger", "enable_liger_kernel")
    else:
        reading.same("enable_liger_kernel", why="off")
    reading.put("resources.gradient_checkpointing", not reading.flag("disable_gradient_checkpointing"), "disable_gradient_checkpointing")
    if reading.flag("pure_bf16"):
        why = "weights in bfloat16 there, in float32 with products in bfloat16 here"
        reading.put("training.precision", "bfloat16", "pure_bf16", why=why, differs=True)
    else:
        reading.same("pure_bf16", why="off")
    patience = reading.integer("early_stopping_steps")
    if patience:
        reading.put("training.validation.patience", patience, "early_stopping_steps")
    else:
        reading.same("early_stopping_steps", why="no early stop")


def looks_like(root: Node) -> bool:
    """Whether ROOT defines data sets, as dataset_info.json does, and no training."""
    known: frozenset[str] = listed(TOOL, "dataset_keys")
    values: list[Any] = [*root.content.values()]
    return bool(values) and all(isinstance(v.content, dict) and v.content and set(v.content) & known for v in values)
