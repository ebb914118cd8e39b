"""axolotl's configurations: what each key means in a spec.

Facts are those of axolotl 0.18 (github.com/axolotl-ai-cloud/axolotl): src/axolotl/utils/schemas for names and defaults, `core/builders` for
what becomes of them, `prompt_strategies` for the types of data sets.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.core.errors import Problem
from engine.importing import common, reasons
from engine.importing.common import Request
from engine.importing.preferences import SMOOTHED_BY_TRL, put_dpo, put_pairs, put_strength, settle_pairs
from engine.importing.reading import Draft, Reading, Refusal
from engine.importing.rows import put_rows, task_name
from engine.importing.schemas import listed, names, version
from engine.spec.tree import Node
from stages.foreign import formats

TOOL = "axolotl"

_INTERNAL = "axolotl sets it itself"

WITHOUT_MEANING: Mapping[str, str] = {
    **dict.fromkeys(("output_dir", "dataset_prepared_path", "axolotl_config_path", "strict"), reasons.OUTPUT),
    **dict.fromkeys(
        ("logging_steps", "include_tokens_per_second", "include_tkps", "profiler_steps", "profiler_steps_start", "use_otel_metrics"),
        reasons.LOGGING,
    ),
    **dict.fromkeys(("otel_metrics_host", "otel_metrics_port"), reasons.LOGGING),
    **dict.fromkeys(
        (
            *("dataset_processes", "dataset_num_proc", "dataset_keep_in_memory", "dataloader_pin_memory", "dataloader_num_workers"),
            *("dataloader_prefetch_factor", "dataloader_drop_last", "remove_unused_columns", "num_dataset_shards_to_save"),
            *("skip_prepare_dataset", "is_preprocess", "preprocess_iterable", "streaming", "streaming_multipack_buffer_size"),
            *("pretrain_multipack_buffer_size", "sample_packing_mp_start_method", "pad_to_multiple_of", "pad_to_sequence_len"),
            *("accelerator_config", "push_dataset_to_hub", "hf_use_auth_token", "trust_remote_code", "tokenizer_use_fast"),
            *("tokenizer_legacy", "tokenizer_save_jinja_files", "auto_find_batch_size"),
        ),
        reasons.LOADER,
    ),
    **dict.fromkeys(
        (
            *("device", "device_map", "world_size", "local_rank", "ddp", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_broadcast_buffers"),
            *("ddp_find_unused_parameters", "use_ray", "ray_run_name", "ray_num_workers", "resources_per_worker", "max_memory"),
            *("gpu_memory_limit", "low_cpu_mem_usage", "experimental_skip_move_to_device", "lora_on_cpu", "qlora_sharded_model_loading"),
            *("dp_shard_size", "dp_replicate_size", "fsdp_version", "fsdp_final_state_dict_type", "fp32_norms", "fp32_norm_classes"),
        ),
        reasons.LAUNCH,
    ),
    **dict.fromkeys(
        (
            *("gc_steps", "gc_collect_steps", "torch_empty_cache_steps", "fp8_enable_fsdp_float8_all_gather", "selective_checkpointing"),
            *("gradient_checkpointing_kwargs", "activation_offloading", "layer_offloading", "sample_packing_group_size"),
            *("sample_packing_bin_size", "sample_packing_eff_est", "flex_attn_compile_kwargs", "flash_attn_cross_entropy"),
            *("flash_attn_fuse_mlp", "flash_optimum", "flash_attn_rms_norm", "flash_attn_d512", "gemma4_hybrid_attn_impl"),
            *("large_head_attention", "sdpa_varlen", "fused_attn_kernel", "experts_implementation", "lora_mlp_kernel", "lora_qkv_kernel"),
            *("lora_o_kernel", "lora_embedding_kernel", "chunked_cross_entropy", "chunked_cross_entropy_num_chunks", "tiled_mlp"),
            *("tiled_mlp_num_shards", "tiled_mlp_use_original_mlp", "deepcompile", "heads_k_stride", "ring_attn_func", "use_kernels"),
            *("torch_compile_backend", "torch_compile_mode", "torch_compile_options", "peft_autocast_adapter_dtype"),
            *("embeddings_skip_upcast", "llama4_linearized_experts", "resize_token_embeddings_to_32x", "shrink_embeddings"),
            *("context_parallel_size", "sequence_parallel_degree", "tensor_parallel_size", "eval_sample_packing", "eval_sequence_len"),
        ),
        reasons.SPEED,
    ),
    **dict.fromkeys(
        (
            *("total_num_tokens", "total_supervised_tokens", "is_falcon_derived_model", "is_llama_derived_model", "torchdistx_path"),
            *("is_mistral_derived_model", "is_qwen_derived_model", "model_type", "tokenizer_type", "base_model_config", "type_of_model"),
            *("cls_model_config", "multipack_real_batches"),
        ),
        _INTERNAL,
    ),
    **dict.fromkeys(
        (
            *("save_total_limit", "save_first_step", "save_only_model", "save_strategy", "saves_per_epoch", "save_safetensors"),
            *("resume_from_checkpoint", "auto_resume_from_checkpoints", "dynamic_checkpoint"),
        ),
        reasons.KEPT,
    ),
    **dict.fromkeys(
        (
            *("wandb_name", "wandb_run_id", "wandb_mode", "wandb_entity", "wandb_watch", "wandb_log_model", "mlflow_tracking_uri"),
            *("mlflow_experiment_name", "mlflow_run_name", "hf_mlflow_log_artifacts", "use_comet", "comet_api_key", "comet_workspace"),
            *("comet_project_name", "comet_experiment_key", "comet_mode", "comet_online", "comet_experiment_config", "use_trackio"),
            *("trackio_project_name", "trackio_run_name", "trackio_space_id"),
        ),
        reasons.TRACKING,
    ),
    **dict.fromkeys(("hub_model_id", "hub_strategy", "hub_revision"), reasons.PUBLISH),
    **dict.fromkeys(
        (
            *("generate_samples", "num_generation_samples", "generation_max_new_tokens", "generation_temperature", "generation_top_p"),
            *("generation_top_k", "generation_prompt_ratio", "generation_do_sample", "eval_table_size", "eval_max_new_tokens"),
            *("do_causal_lm_eval", "eval_causal_lm_metrics", "do_bench_eval", "bench_dataset", "bench_split", "gradio_title"),
            *("gradio_share", "gradio_server_name", "gradio_server_port", "gradio_max_new_tokens", "gradio_temperature"),
        ),
        reasons.SAMPLES,
    ),
    **dict.fromkeys(("merge_lora", "merge_method"), "add a section [merge] to the spec"),
    **dict.fromkeys(
        (
            *("vllm", "kto_desirable_weight", "kto_undesirable_weight", "max_prompt_len", "center_rewards_coefficient"),
            *("dion_lr", "dion_momentum", "dion_rank_fraction", "dion_rank_multiple_of", "qgalore_rank", "qgalore_update_proj_gap"),
            *("qgalore_scale", "qgalore_proj_type", "qgalore_proj_quant", "qgalore_proj_bits", "qgalore_proj_group_size"),
            *("qgalore_cos_threshold", "qgalore_gamma_proj", "qgalore_queue_size", "adam_beta3", "adam_epsilon2", "lisa_step_interval"),
            *("lisa_layers_attribute", "relora_prune_ratio", "relora_prune_method", "relora_cpu_offload", "eaft_alpha", "eaft_k"),
            *("jagged_restart_warmup_steps", "jagged_restart_anneal_steps", "scaling_softmax_factor", "scaling_softmax_bias"),
            *("loraplus_lr_embedding", "pose_split_on_token_ids", "pose_max_context_len", "pose_num_chunks", "image_size"),
            *("image_resize_algorithm", "role_boundaries", "processor_kwargs", "model_quantization_config_kwargs", "num_labels"),
            *("ebft", "freeze_mm_modules", "optim_target_modules", "pretrain_multipack_attn", "quantization"),
        ),
        reasons.OFF,
    ),
    "precompute_ref_log_probs": "a step of its own computes what the reference model says, once",
    **dict.fromkeys(("dpo_padding_free", "dpo_use_liger_kernel", "dpo_use_logits_to_keep"), reasons.SPEED),
    "dpo_generate_during_eval": reasons.SAMPLES,
    "dpo_beta": "axolotl warns of it and goes by rl_beta",
    "loss_watchdog_threshold": "a training whose loss rises far above its first one stops by itself (resources.stop_on_divergence)",
    "loss_watchdog_patience": "a training whose loss rises far above its first one stops by itself (resources.stop_on_divergence)",
    "metric_for_best_model": "the best weights are those of the lowest validation loss",
    "greater_is_better": "the best weights are those of the lowest validation loss",
    "shuffle_before_merging_datasets": "the mixture is shuffled as a whole",
    "eot_tokens": "every supervised answer ends with the token that the template writes after it, and that token is supervised",
    "tokenizer_config": "the tokenizer is that of the model's folder",
}
"""Keys that have no meaning in a spec, and why."""

_PREFERENCES = "rl: dpo, orpo or simpo, with pairs of answers"
_PLAIN_LORA = "leave it out"

REFUSED: Mapping[str, Refusal] = {
    "reward_model": Refusal("a reward model", _PREFERENCES),
    "process_reward_model": Refusal("a process reward model", _PREFERENCES),
    "dpo_use_weighting": Refusal("weights of pairs (WPO)", "leave it out", nearest=True),
    "rpo_alpha": Refusal("rpo_alpha, which axolotl refuses too", "leave it out"),
    "dpo_norm_loss": Refusal("dpo_norm_loss, which axolotl refuses too", "leave it out"),
    "trainer_cls": Refusal("a trainer of one's own", "the training of a spec is fixed"),
    "processor_type": Refusal("a model of text and images or audio", "a model of text alone"),
    "qat": Refusal("quantization-aware training", 'training.method = "qlora"', nearest=True),
    "fp8": Refusal("training in FP8", 'training.precision = "bfloat16"', nearest=True),
    "use_eaft": Refusal("the loss EAFT", "the cross entropy", nearest=True),
    "use_pose": Refusal("PoSE's positions", "[model] rope_scaling and a longer tokenization.max_length"),
    "relora": Refusal("ReLoRA's restarts", 'training.method = "lora"', nearest=True),
    "jagged_restart_steps": Refusal("restarts of the schedule", "a schedule without restarts", nearest=True),
    "lisa_n_layers": Refusal("LISA: a few layers at a time", 'training.method = "lora", or "full"'),
    "unfrozen_parameters": Refusal("training of some weights of the model", 'training.method = "full", or "lora" with modules_to_save'),
    "reinit_weights": Refusal("random weights in a known architecture", "[model] architecture"),
    "loraplus_lr_ratio": Refusal("LoRA+: two learning rates", "one learning rate", nearest=True),
    "embedding_lr": Refusal("a learning rate of its own for embeddings", "one learning rate", nearest=True),
    "embedding_lr_scale": Refusal("a learning rate of its own for embeddings", "one learning rate", nearest=True),
    "lr_groups": Refusal("learning rates by module", "one learning rate", nearest=True),
    "lr_quadratic_warmup": Refusal("a quadratic warm-up", "a linear warm-up", nearest=True),
    "lr_div_factor": Refusal("a divisor of one_cycle", "another schedule", nearest=True),
    "cosine_constant_lr_ratio": Refusal("a constant end of the schedule", "training.schedule.floor", off=(0, 0.0), nearest=True),
    "optim_args": Refusal("arguments of the optimizer", "the keys of training.optimizer", nearest=True),
    "lora_fan_in_fan_out": Refusal("fan_in_fan_out", "it is set by the model's architecture", nearest=True),
    "lora_target_parameters": Refusal("updates of bare parameters, such as experts", _PLAIN_LORA, nearest=True),
    "lora_rank_pattern": Refusal("a rank by layer", "one rank", nearest=True),
    "lora_alpha_pattern": Refusal("an alpha by layer", "one alpha", nearest=True),
    "peft_layers_to_transform": Refusal("updates of some layers only", "all layers", nearest=True),
    "peft_layers_pattern": Refusal("updates of some layers only", "all layers", nearest=True),
    "peft_layer_replication": Refusal("repeated layers", _PLAIN_LORA),
    "peft_trainable_token_indices": Refusal(
        "training of some embeddings", 'training.method.modules_to_save = ["embed_tokens"]', nearest=True
    ),
    "peft_ensure_weight_tying": Refusal("tied copies of saved modules", _PLAIN_LORA, nearest=True),
    "gptq": Refusal("a base in GPTQ", 'an unquantised base with training.method = "qlora"'),
    "model_quantization_config": Refusal("a base with a quantisation of its own", 'an unquantised base with training.method = "qlora"'),
    "use_onebitllms": Refusal("training of 1-bit weights", "a base in 16 bits"),
    "quantize_moe_experts": Refusal("quantised experts", 'training.method = "lora"', nearest=True),
    "tokenizer_use_mistral_common": Refusal("mistral-common's tokenizer", "the tokenizer.json of the model", nearest=True),
    "added_tokens_overrides": Refusal("new texts for reserved tokens", "tokenization.special_tokens"),
    "fix_untrained_tokens": Refusal("new embeddings for untrained tokens", "leave it out", nearest=True),
    "mean_resizing_embeddings": Refusal("the mean of all embeddings for new tokens", "leave it out", nearest=True),
    "model_config": Refusal("changes of the model's configuration", "[model] rope_scaling, or a folder with the changed config.json"),
    "overrides_of_model_config": Refusal(
        "changes of the model's configuration", "[model] rope_scaling, or a folder with the changed config.json"
    ),
    "model_kwargs": Refusal("arguments of from_pretrained", "leave it out", nearest=True),
    "overrides_of_model_kwargs": Refusal("arguments of from_pretrained", "leave it out", nearest=True),
    "rope_scaling": Refusal("rope_scaling, which axolotl refuses too", "[model] rope_scaling of a spec"),
    "scaling_softmax": Refusal("a scaled softmax", "leave it out", nearest=True),
    "min_sample_len": Refusal("a least length of rows in tokens", 'cleaning = [{ kind = "length", min_words = ... }]', nearest=True),
    "max_packed_sequence_len": Refusal("max_packed_sequence_len, which axolotl refuses too", "sequence_len and sample_packing"),
    "s2_attention": Refusal("s2_attention, which axolotl refuses too", "leave it out"),
    "dataset_shard_num": Refusal("one of several parts of the rows", "source.sample", nearest=True),
    "dataset_shard_idx": Refusal("one of several parts of the rows", "source.sample", off=(0,), nearest=True),
    "curriculum_sampling": Refusal(
        "rows in the order of the file", 'mixture.sampler = "curriculum", with a task for each stage', nearest=True
    ),
    "sample_packing_sequentially": Refusal("packing in the order of the file", "packing over the whole epoch", nearest=True),
}
"""Keys that ask for what a spec cannot say."""

PLUGINS_REFUSED: Mapping[str, Refusal] = {
    "kd_trainer": Refusal("log-probabilities of a teacher in the rows", 'training.objective.kind = "distill", whose step computes them'),
    "diffusion": Refusal("a diffusion model", "a model that writes from left to right"),
    "hatchery": Refusal("training at a service", "training on devices of one's own"),
    "nemo_gym_enabled": Refusal("training on rewards", _PREFERENCES),
    "mora": Refusal("MoRA", 'training.method = "lora"', nearest=True),
    "llmcompressor": Refusal("training of sparse weights", 'training.method = "full"'),
    "dense_mixer": Refusal("dense gradients of experts", "leave it out", nearest=True),
    "spectrum_top_fraction": Refusal("Spectrum: training of some layers", 'training.method = "full", or "lora"'),
    "grokfast_alpha": Refusal("Grokfast's gradients", "leave it out", nearest=True),
    "expert_parallel_size": Refusal("experts on different devices", "resources.zero", off=(1,), nearest=True),
}
"""Keys of plugins that ask for what a spec cannot say; all others of plugins change the speed only, or belong to one of these."""
_LIGER = (
    *("liger_rope", "liger_rms_norm", "liger_rms_norm_gated", "liger_layer_norm", "liger_swiglu", "liger_glu_activation"),
    *("liger_cross_entropy", "liger_fused_linear_cross_entropy", "liger_use_token_scaling"),
)
HANDLED = frozenset(
    (
        *("base_model", "model_revision", "revision_of_model", "lora_model_dir", "datasets", "test_datasets", "pretraining_dataset"),
        *("shuffle_merged_datasets", "dataset_exact_deduplication", "val_set_size", "seed", "sequence_len", "excess_length_strategy"),
        *("sample_packing", "batch_flattening", "group_by_length", "train_on_inputs", "chat_template", "chat_template_jinja"),
        *("chat_template_kwargs", "default_system_message", "special_tokens", "tokens", "pretraining_sample_concatenation"),
        *("micro_batch_size", "gradient_accumulation_steps", "batch_size", "eval_batch_size", "num_epochs", "max_steps"),
        *("learning_rate", "lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio", "warmup_steps", "warmup_ratio", "optimizer"),
        *("adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "neftune_noise_alpha", "noisy_embedding_alpha"),
        *("bf16", "fp16", "bfloat16", "float16", "float32", "tf32", "adapter", "load_in_4bit", "load_in_8bit", "bnb_config_kwargs"),
        *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_modules_to_save", "peft"),
        *("peft_use_dora", "peft_use_rslora", "peft_init_lora_weights", "eval_steps", "evals_per_epoch", "eval_strategy"),
        *("evaluation_strategy", "early_stopping_patience", "load_best_model_at_end", "save_steps", "gradient_checkpointing"),
        *("torch_compile", "deepspeed", "fsdp", "fsdp_config", "attn_implementation", "xformers_attention", "sdp_attention"),
        *("flex_attention", "flash_attention", "sage_attention", "eager_attention", "use_wandb", "wandb_project", "use_mlflow"),
        *("use_tensorboard", "plugins", "rl", "trl", "rl_beta", "dpo_loss_type", "dpo_loss_weights", "dpo_label_smoothing"),
        *("orpo_alpha", "simpo_gamma", "cpo_alpha"),
    )
)
"""Keys that this module reads one by one."""


def read(request: Request) -> Draft:
    """The experiment of an axolotl configuration; its problems and warnings are in the draft."""
    draft = Draft(TOOL)
    reading = Reading(draft, request.document.root, names(TOOL), request.nearest)
    plugins = reading.names("plugins")
    common.put_name(reading, request)
    if reading.given("base_model"):
        revision = reading.one_of("model_revision", "revision_of_model") or "model_revision"
        common.put_model(reading, request, "base_model", revision)
        if (other := "revision_of_model" if revision == "model_revision" else "model_revision") and not reading.given(other):
            reading.same(other, why=f"{revision} says it")
        elif reading.given(other):
            reading.taken(other, ours="model.revision")
    else:
        draft.problems.append(Problem("base_model is missing", reading.node.key, "base_model names the model to train"))
        reading.taken("base_model", "model_revision", "revision_of_model", ours="model")
    pairs = str(reading.get("rl")) in _ON_PAIRS
    _put_data(reading, request, pairs)
    _put_method(reading, request)
    _put_training(reading, request)
    _put_objective(reading)
    _put_resources(reading, request)
    common.put_seed(reading, "seed", 42)
    reading.without_meaning(WITHOUT_MEANING)
    reading.refusals(REFUSED)
    _put_plugins(reading, plugins)
    for key in [*reading.strangers()]:
        reading.ignored(key, f"its schema (version {version(TOOL)}) has no such key", reading.known)
    reading.rest()
    common.settle(draft)
    return draft


_ON_PAIRS = ("dpo", "ipo", "orpo", "simpo")


def _put_objective(reading: Reading) -> None:
    """The loss: cross entropy, or one of pairs of answers."""
    rl = reading.get("rl")
    keys = ("trl", "rl_beta", "dpo_loss_type", "dpo_loss_weights", "dpo_label_smoothing", "orpo_alpha", "simpo_gamma", "cpo_alpha")
    if rl not in _ON_PAIRS:
        reading.same("rl", why="answers are learned") if rl is None else reading.refuse(
            "rl", f"training on {'judged answers' if rl == 'kto' else 'rewards'} ({rl})", _PREFERENCES
        )
        reading.none(*keys, why=reasons.OFF)
        return
    reading.taken("rl", ours="training.objective")
    beta = next((key for key in ("rl_beta", "orpo_alpha") if reading.given(key)), "rl_beta")
    table = reading.child("trl")
    inner = reading.inside(table, [*table.content], "trl") if table is not None and isinstance(table.content, dict) else None
    where, strength = (inner, "beta") if inner and inner.given("beta") else (reading, beta)
    if rl in ("dpo", "ipo"):
        losses = reading.names("dpo_loss_type") or ("sigmoid",) if rl == "dpo" else ("ipo",)
        # axolotl hands the share on to TRL, for rl: dpo alone (axolotl/core/trainers/dpo/__init__.py).
        put_dpo(reading, losses, "dpo_loss_type" if rl == "dpo" else "rl", beta, "dpo_label_smoothing", SMOOTHED_BY_TRL)
        weights = reading.get("dpo_loss_weights")
        if rl == "dpo" and weights and set(map(float, weights)) != {1.0}:
            reading.refuse("dpo_loss_weights", "a weight of the loss", "training.learning_rate", nearest=True)
    elif rl == "orpo":
        reading.draft.set("training.objective.kind", "orpo", ["rl"])
        put_strength(reading, "weight", beta, 0.1)
    else:
        reading.draft.set("training.objective.kind", "simpo", ["rl"])
        put_strength(reading, "beta", beta, 0.1)
        if not reading.given("simpo_gamma"):
            reading.wrong("simpo_gamma", "a number: axolotl has no default")
        reading.put("training.objective.margin", float(reading.number("simpo_gamma", 0.5) or 0.0), "simpo_gamma")
        if float(reading.number("cpo_alpha", 1.0) or 0.0):
            feature = "SimPO with the cross entropy of the chosen answers (cpo_alpha is 1 if it is not set)"
            reading.refuse("cpo_alpha", feature, "cpo_alpha: 0, or rl: orpo", nearest=True)
    if where is inner and inner:
        put_strength(inner, "weight" if rl == "orpo" else "beta", strength, 0.1)
        inner.none(*(key for key in inner.node.content if key != "beta"), why="of trainings on rewards")
        reading.taken("trl", ours="training.objective")
    cut = "axolotl cuts the answers of long pairs; here such pairs are left out"
    truncates = reading.get("excess_length_strategy") == "truncate"
    settle_pairs(reading, "axolotl", "excess_length_strategy", cut if truncates else "")
    reading.none("train_on_inputs", why="of a training on pairs only the answers are learned")
    reading.none(*(key for key in keys if key not in reading.draft.entries), why=f"not of rl: {rl}")


def _put_plugins(reading: Reading, plugins: tuple[str, ...]) -> None:
    """Keys of plugins; those of a plugin that is not listed are ignored by axolotl itself."""
    known = listed(TOOL, "plugin_keys")
    loaded = " ".join(plugins).lower()
    both = Reading(reading.draft, reading.node, known, reading.nearest)
    liger = next((key for key in _LIGER if reading.given(key) and reading.get(key)), None)
    if liger and "liger" in loaded:
        reading.draft.set("resources.kernels", "liger", [liger])
    for key in sorted(known):
        family = key.split("_")[0]
        if reading.given(key) and not loaded and (key in PLUGINS_REFUSED or key in _LIGER or key == "cut_cross_entropy"):
            both.ignored(key, "its plugin is not in `plugins`", ())
        elif key in PLUGINS_REFUSED:
            both.refusals({key: PLUGINS_REFUSED[key]})
        elif key in _LIGER and reading.given(key):
            both.taken(key, ours="resources.kernels")
        else:
            both.none(
                key, why=reasons.SPEED if family in ("liger", "cut", "use", "moe", "dsv4", "gemma4", "nvfp4", "expert") else reasons.OFF
            )
    if plugins:
        reading.none("plugins", why="the keys of its plugins are accounted for one by one")
    else:
        reading.same("plugins", why="no plugins")


_STYLES = ("instruct", "chat", "chatml", "phi")
_FIELDS: Mapping[str, tuple[Mapping[str, str], str, tuple[str, str]]] = {
    "alpaca": ({"instruction": "instruction", "input": "input"}, "output", (formats.WITH_INPUT, formats.WITHOUT_INPUT)),
    "gpteacher": ({"instruction": "instruction", "input": "input"}, "response", (formats.WITH_INPUT, formats.WITHOUT_INPUT)),
    "oasst": ({"instruction": "INSTRUCTION"}, "RESPONSE", (formats.WITH_INPUT, formats.WITHOUT_INPUT)),
    "alpaca_chat.load_qa": ({"instruction": "question"}, "answer", ("", "")),
    "alpaca_chat.load_no_prompt": ({"instruction": "instruction", "input": "input"}, "output", ("", "")),
    "alpaca_instruct.load_no_prompt": ({"instruction": "instruction", "input": "input"}, "output", ("", "")),
}
"""Types of data sets with one question and one answer: the columns of the prompt, the column of the answer, and the system prompts."""
_CHAT_TYPES = ("chat_template", "chat_template.default", "sharegpt", "chat_template.load")
_REWARD_TYPES = ("bradley_terry", "chatml.", "llama3.", "stepwise", "ebft", "rwd.", "zephyr.", "user_defined.", "passthrough", "orpo")
_PAIR_TYPES: Mapping[str, Mapping[str, str]] = {
    "default": {
        "prompt": "prompt if prompt is defined else input if input is defined else question if question is defined else instruction",
        "input": "none",
        "chosen": "chosen if chosen is defined else chosen_response",
        "rejected": "rejected if rejected is defined else rejected_response",
    },
    "intel": {"prompt": "question"},
    "icr": {"prompt": "input"},
    "prompt_pairs": {},
    "ultra": {},
    "argilla_chat": {},
}
"""Columns of the pairs of `chatml.` and `llama3.` data sets, by what follows; the last two have whole conversations as answers."""
_PAIR_CHATS = ("chat_template", "chat_template.default", "chat_template.argilla_chat", "chat_template.argilla")


def _sort(dataset: Node, pairs: bool) -> str:
    """The sort of a data set: `chat`, `prompt`, `text`, `defined` or another type's name; of PAIRS, `chat`, `styled` or `plain`."""
    kind = dataset.child("type")
    value = kind.content if kind else None
    if pairs:
        style, _, columns = str(value).partition(".")
        if value in _PAIR_CHATS:
            return "chat"
        if value is None or str(value).startswith("passthrough"):
            return "plain"
        return "styled" if style in ("chatml", "llama3") and columns in _PAIR_TYPES else str(value)
    if isinstance(value, dict):
        return "defined"
    base = str(value).partition(":")[0]
    if base in _CHAT_TYPES:
        return "chat"
    if base in _FIELDS:
        return "prompt"
    return "text" if base in ("completion", "pretrain") else str(value)


def _put_data(reading: Reading, request: Request, pairs: bool) -> None:
    """Tasks, tokenization and mixture."""
    key = next((k for k in ("datasets", "pretraining_dataset") if reading.given(k)), None)
    for other in ("datasets", "pretraining_dataset"):
        if other != key:
            reading.same(other, why="not set") if not reading.given(other) else reading.refuse(
                other, "training on data sets and on a text to go on from at once", "keep one of datasets and pretraining_dataset"
            )
    reading.put("tokenization.max_length", reading.integer("sequence_len", 512), "sequence_len")
    node = reading.child(key) if key else None
    if node is None or not isinstance(node.content, tuple) or not node.content:
        reading.draft.problems.append(Problem("no data set", reading.node.key, "datasets lists what the model is trained on"))
        _skip_data(reading)
        return
    reading.taken(str(key), ours="tasks")
    tasks: list[str] = []
    sorts = []
    for number, dataset in enumerate(node.content):
        if not isinstance(dataset.content, dict):
            reading.wrong(str(key), "a list of mappings")
            continue
        inner = reading.inside(dataset, listed(TOOL, "dataset_keys"), f"{key}[{number}]")
        sorts.append(_sort(dataset, pairs))
        tasks.append(_put_dataset(inner, request, sorts[-1], tasks, pairs))
        reading.draft.datasets[tasks[-1]] = dataset.plain()
    reading.draft.set("mixture.tasks", tuple(tasks), [str(key)])
    _put_formats(reading, node, sorts, str(key), pairs)
    _put_splits(reading, request, tasks, node)
    common.put_text_evaluation(reading.draft, [task for task, sort in zip(tasks, sorts, strict=True) if sort == "text"], tasks)
    if reading.flag("shuffle_merged_datasets", True):
        reading.same("shuffle_merged_datasets", why="a mixture is shuffled")
    else:
        reading.refuse("shuffle_merged_datasets", "rows in the order of the files", "a mixture is shuffled", nearest=True)
    if reading.flag("dataset_exact_deduplication"):
        for task in tasks:
            reading.draft.set(("tasks", task, "cleaning"), ({"kind": "duplicates"},), ["dataset_exact_deduplication"])
        reading.taken("dataset_exact_deduplication", ours="tasks.<name>.cleaning")
    else:
        reading.same("dataset_exact_deduplication", why="equal rows stay")


def _skip_data(reading: Reading) -> None:
    for key in (
        *("shuffle_merged_datasets", "dataset_exact_deduplication", "train_on_inputs", "chat_template", "chat_template_jinja"),
        *("chat_template_kwargs", "default_system_message", "excess_length_strategy", "val_set_size", "test_datasets", "datasets"),
        *("special_tokens", "tokens", "pretraining_sample_concatenation"),
    ):
        reading.none(key, why="there is no data set")


_IGNORED_DATASET = {
    "trust_remote_code": reasons.LOADER,
    "preprocess_shards": reasons.LOADER,
    "input_transform": _INTERNAL,
    "input_format": _INTERNAL,
    "field_human": "of a type that axolotl has no more",
    "field_model": "of a type that axolotl has no more",
    "conversation": "of a type that axolotl has no more",
    "logprobs_field": reasons.OFF,
    "temperature": reasons.OFF,
}
_REFUSED_DATASET = {
    "shards": Refusal("one of several parts of the rows", "source.sample", nearest=True),
    "shards_idx": Refusal("one of several parts of the rows", "source.sample", off=(0,), nearest=True),
    "message_field_training_detail": Refusal("training of parts of a message", "train: false on whole messages"),
    "split_thinking": Refusal("reasoning split out of contents", "reasoning_content in the messages", nearest=True),
    "skip": Refusal("rows left out at the beginning", "source.where", off=(0,), nearest=True),
}


def _put_dataset(reading: Reading, request: Request, sort: str, before: list[str], pairs: bool) -> str:
    """The task of one data set; returns its name."""
    name = task_name(str(reading.get("path") or reading.get("type") or "rows"), before)
    task = ("tasks", name)
    put_rows(reading, request, (*task, "source"), _SOURCE_KEYS)
    reading.without_meaning(_IGNORED_DATASET)
    reading.refusals(_REFUSED_DATASET)
    settings = reading.draft.set
    if pairs and sort in ("chat", "styled", "plain"):
        _put_pairs(reading, task, sort)
    elif sort == "chat":
        _put_messages(reading, task)
    if pairs or sort != "chat":
        chat_only = (
            *("field_messages", "field_tools", "field_thinking", "template_thinking_key", "message_field_role", "message_field_content"),
            *("message_property_mappings", "message_field_training", "roles_to_train", "train_on_eos", "train_on_eot", "roles"),
            *("drop_system_message", "chat_template", "chat_template_jinja"),
        )
        reading.none(*(key for key in chat_only if not pairs or sort != "chat" or key not in _PAIR_CHAT_KEYS), why=_NOT_CHAT)
    if sort == "text":
        text = reading.one_of("field", "text_column") or "field"
        column = str(reading.get(text, "text"))
        if column != "text":
            reading.put((*task, "source", "columns", "text"), column, text)
        for key in ("field", "text_column"):
            if key != text or column == "text":
                reading.same(key, why="the column text")
        reading.put((*task, "layout", "kind"), "text", "type")
    else:
        reading.none("field", "text_column", why="of data sets of type completion")
    if sort == "prompt":
        base, _, style = str(reading.get("type")).partition(":")
        fields, answer, systems = _FIELDS[base]
        style = style or ("chat" if base.startswith("alpaca_chat") else "instruct")
        if style not in _STYLES:
            reading.refuse("type", f"the prompt style {style}", f"type: {base}, with {', '.join(_STYLES)}")
            style = "instruct"
        text = formats.prompt(style, fields, systems)
        reading.put((*task, "prompts"), (text,), "type")
        settings((*task, "teacher"), {"kind": "gold", "column": answer}, ["type"])
        if style in formats.TEXTS_IN_PROMPTS:
            settings("tokenization.control_tokens_in_text", "control", ["type"])
    elif sort == "defined":
        _put_defined(reading, task)
    elif sort not in ("chat", "text") and not (pairs and sort in ("styled", "plain")):
        _refuse_type(reading, sort)
    for key in [*reading.strangers()]:
        known = sorted(reading.known)
        if pairs and key in ("field_chosen", "field_rejected"):
            reading.taken(key, ours=f"tasks.{name}.source.columns")
        elif key in listed(TOOL, "other_dataset_keys"):
            reading.none(key, why="of data sets of preferences or steps")
        else:
            reading.ignored(key, f"its schema (version {version(TOOL)}) has no such key here", known)
    return name


_NOT_CHAT = "of data sets of type chat_template"
_PAIR_CHAT_KEYS = (
    *("field_messages", "message_property_mappings", "message_field_role", "message_field_content", "roles"),
    *("chat_template", "chat_template_jinja"),
)


def _put_pairs(reading: Reading, task: tuple[str, str], sort: str) -> None:
    """A data set of pairs: where the prompt and both answers are."""
    reading.taken("type", ours=f"tasks.{task[1]}.layout")
    if sort != "chat":
        columns = _PAIR_TYPES[str(reading.get("type")).partition(".")[2]] if sort == "styled" else {}
        put_pairs(reading, task, columns, ["type"])
        return
    asked = str(reading.get("field_messages", "messages"))
    columns = {side: str(reading.get(f"field_{side}", side)) for side in ("chosen", "rejected")}
    keys = ("type", "field_messages", "field_chosen", "field_rejected")
    whole = str(reading.get("type")).endswith(("argilla_chat", "argilla"))
    put_pairs(reading, task, columns if whole else {"messages": asked, **columns}, keys)
    reading.taken("field_messages", ours=f"tasks.{task[1]}.source.columns")
    _put_message_keys(reading)
    _put_role_names(reading)


_SOURCE_KEYS = {"path": "path", "name": "name", "split": "split", "revision": "revision", "files": "data_files", "type": "ds_type"}


def _refuse_type(reading: Reading, sort: str) -> None:
    if sort in ("None", ""):
        reading.refuse("type", "rows that are tokens already", "the rows themselves, with a type such as chat_template")
    elif sort.startswith(_REWARD_TYPES):
        reading.refuse("type", f"the data set type {sort} (preferences, rewards or steps)", _PREFERENCES)
    elif sort == "input_output":
        hint = "write the segments as messages: label false as role user, label true as role assistant, without end tokens"
        reading.refuse("type", "segments with a label each", hint)
    else:
        reading.refuse(
            "type", f"the data set type {sort}", "a type that is a table with format and no_input_format, or tasks.<name>.prompts"
        )


def _put_defined(reading: Reading, task: tuple[str, str]) -> None:
    """A prompt that the configuration itself defines, as Python format strings."""
    node = reading.child("type")
    assert node is not None
    inner = reading.inside(node, listed(TOOL, "prompt_keys"), "type")
    fields = {short: str(inner.get(f"field_{short}", short)) for short in ("system", "instruction", "input", "output")}
    columns = {short: name for short, name in fields.items() if name != short and short != "output" and inner.given(f"field_{short}")}
    for short, column in columns.items():
        inner.put((*task, "source", "columns", short), column, f"field_{short}")
    for short in ("system", "instruction", "input"):
        if short not in columns:
            inner.same(f"field_{short}", why=f"the column {short}")
    turn, short_turn = (
        str(inner.get(key, default)) for key, default in (("format", "{instruction} {input} "), ("no_input_format", "{instruction} "))
    )
    system_format = str(inner.get("system_format", "{system}"))
    system = str(inner.get("system_prompt", ""))
    said = f"{{% if system is defined %}}{{{{ system }}}}{{% else %}}{system}{{% endif %}}"
    head = _jinja(system_format).replace("{{ system }}", said) if "{system}" in system_format else ""
    condition = "(system is defined and system)" if not system else "(system is not defined or system)"
    opening = f"{{% if {condition} %}}{head}{{% endif %}}" if head else ""
    asked = "input is defined and input"
    body = f"{{% if {asked} %}}{_jinja(turn)}{{% else %}}{_jinja(short_turn)}{{% endif %}}"
    inner.put((*task, "prompts"), (opening + body,), "format", "no_input_format", "system_format", "system_prompt")
    reading.taken("type", ours=f"tasks.{task[1]}.prompts")
    inner.put((*task, "teacher"), {"kind": "gold", "column": fields["output"]}, "field_output")
    for key in [*inner.strangers()]:
        inner.ignored(key, f"its schema (version {version(TOOL)}) has no such key here", inner.known)


def _jinja(text: str) -> str:
    """A Python format string as Jinja: `{name}` becomes `{{ name }}`, doubled braces single ones."""
    parts = re.split(r"(\{\{|\}\}|\{[a-z]+\})", text)
    return "".join(
        {"{{": "{", "}}": "}"}.get(part, f"{{{{ {part[1:-1]} }}}}" if re.fullmatch(r"\{[a-z]+\}", part) else part) for part in parts
    )


_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value", "text")
_KNOWN_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system", "tool": "tool"}


def _put_messages(reading: Reading, task: tuple[str, str]) -> None:
    """A data set of conversations: where the messages are, and which roles are learned."""
    sharegpt = str(reading.get("type")) == "sharegpt"
    if sharegpt:
        why = "axolotl has this type no more; it is read as chat_template with conversations"
        reading.put((*task, "layout", "kind"), "conversations", "type", why=why, differs=True)
    else:
        reading.put((*task, "layout", "kind"), "auto", "type")
    given = str(reading.get("field_messages", "conversations" if sharegpt else "messages"))
    if given in ("messages", "conversations"):
        kind = "messages" if given == "messages" else "conversations"
        reading.put((*task, "layout", "kind"), kind, "field_messages")
    else:
        reading.put((*task, "layout", "kind"), "messages", "field_messages")
        reading.put((*task, "source", "columns", "messages"), given, "field_messages")
    mapping = _put_message_keys(reading)
    thinking = {str(reading.get(key, "reasoning_content")) for key in ("field_thinking",)} | {str(mapping.get("reasoning_content", ""))}
    if thinking <= {"reasoning_content", "thinking", "reasoning", ""}:
        reading.same(
            "field_thinking", "template_thinking_key", why="reasoning is recognised, and passed under the keys that the template reads"
        )
    else:
        reading.refuse(
            "field_thinking", f"reasoning under {', '.join(sorted(thinking - {''}))}", "rename it to reasoning_content", nearest=True
        )
        reading.same("template_thinking_key", why="reasoning is passed under the keys that the template reads")
    tools = str(reading.get("field_tools", "tools"))
    if tools == "tools":
        reading.same("field_tools", why="the column tools")
    else:
        reading.put((*task, "source", "columns", "tools"), tools, "field_tools")
    trained = reading.get("message_field_training")
    if trained in (None, "train", "weight"):
        reading.same("message_field_training", why="train and weight of a message are recognised")
    else:
        reading.refuse("message_field_training", f"a flag named {trained}", "rename it to train")
    _put_roles(reading)
    if reading.flag("drop_system_message"):
        column = formats.column(given)
        first = f"{column}[0]['{mapping.get('role') or reading.get('message_field_role') or 'role'}']"
        shown = "conversations" if given == "conversations" else "messages"
        source = (*task, "source", "columns")
        reading.put((*source, shown), f"{column}[1:] if {first} == 'system' else {column}", "drop_system_message")
        reading.put((*source, "system"), "none", "drop_system_message")
    else:
        reading.same("drop_system_message", why="system prompts stay")


def _put_message_keys(reading: Reading) -> Mapping[str, Any]:
    """Under which keys messages have role and content; returns the mapping of their keys."""
    mapping = reading.get("message_property_mappings") or {}
    if not isinstance(mapping, dict):
        reading.wrong("message_property_mappings", "a mapping")
        mapping = {}
    role = str(mapping.get("role") or reading.get("message_field_role") or "role")
    content = str(mapping.get("content") or reading.get("message_field_content") or "content")
    for old, now in (("message_field_role", "role"), ("message_field_content", "content")):
        if reading.given(old) and mapping.get(now, reading.get(old)) != reading.get(old):
            reading.conflict(old, "message_property_mappings", hint="keep one of them")
    keys = ("message_property_mappings", "message_field_role", "message_field_content")
    unread = [f"{k}: {v}" for k, v in (("role", role), ("content", content)) if v not in (_ROLE_KEYS if k == "role" else _CONTENT_KEYS)]
    if unread:
        key = next(k for k in keys if reading.given(k))
        reading.refuse(key, f"messages with {', '.join(unread)}", "rename the keys of the messages: role or from, content or value")
    for key in keys:
        reading.same(key, why="messages have role or from, and content or value")
    return mapping


def _put_roles(reading: Reading) -> None:
    """Which roles are learned, and which ends of their turns."""
    _put_role_names(reading)
    learned = {_KNOWN_ROLES.get(role, role) for role in reading.names("roles_to_train")}
    if not reading.given("roles_to_train"):
        learned = {"assistant"}
    if learned == {"assistant"}:
        reading.taken("roles_to_train", ours="tokenization.mask", why="the assistant's turns")
    elif not learned:
        reading.refuse("roles_to_train", "training on no turn at all", "roles_to_train: [assistant]")
    else:
        feature = f"training on turns of {', '.join(sorted(learned))}"
        reading.refuse("roles_to_train", feature, 'tokenization.mask = "assistant", or "full"', nearest=True)
    ends = str(reading.get("train_on_eos", "turn"))
    for key in ("train_on_eos", "train_on_eot"):
        value = str(reading.get(key, ends))
        if value == "turn":
            reading.same(key, why="each supervised answer ends with a supervised end token")
        else:
            what = {"none": "answers without a supervised end", "last": "only the last end", "all": "ends of other turns too"}.get(
                value, value
            )
            reading.refuse(key, what, "each supervised answer with its end token", nearest=True)


def _put_role_names(reading: Reading) -> None:
    """How roles are named in the rows."""
    roles = reading.get("roles") or {}
    renamed: dict[str, str] = {}
    if isinstance(roles, dict):
        renamed = {str(source): str(target) for target, sources in roles.items() for source in (sources or ())}
    elif reading.given("roles"):
        reading.wrong("roles", "a mapping of roles to lists of names")
    other = {
        source: target for source, target in renamed.items() if _KNOWN_ROLES.get(source, target if source == target else None) != target
    }
    if other:
        shown = ", ".join(f"{source} for {target}" for source, target in other.items())
        reading.refuse("roles", f"roles named {shown}", "rename the roles in the rows: user, assistant, system, tool")
    else:
        reading.same("roles", why="these names of roles are known")


def _put_formats(reading: Reading, node: Node, sorts: list[str], key: str, pairs: bool) -> None:
    """Format, mask and lengths, which all tasks of an experiment share."""
    chats = [n for n, sort in enumerate(sorts) if sort == "chat"]
    if pairs:
        _put_format_of_pairs(reading, node, sorts, key)
        return
    if chats and len(chats) < len(sorts):
        other = next(n for n, sort in enumerate(sorts) if sort != "chat")
        inner = reading.inside(node.content[other], listed(TOOL, "dataset_keys"), f"{key}[{other}]")
        inner.refuse("type", "conversations and other types in one training", "an experiment for each, the second from the first's model")
    everything = reading.flag("train_on_inputs")
    if chats:
        _put_template(reading, node, chats, key)
        inner = reading.inside(node.content[chats[0]], listed(TOOL, "dataset_keys"), f"{key}[{chats[0]}]")
        if everything:
            why = "axolotl learns the contents of all turns, without their headers"
            reading.put("tokenization.mask.kind", "full", "train_on_inputs", why=why, differs=True)
        else:
            reading.same("train_on_inputs", why="the roles to train decide")
            reading.draft.set("tokenization.mask.kind", "assistant", [f"{key}[{chats[0]}].roles_to_train"])
    else:
        for name in ("chat_template", "chat_template_jinja", "chat_template_kwargs", "default_system_message"):
            reading.none(name, why="no data set is of type chat_template")
        reading.put("tokenization.mask.kind", "full" if everything else "completion", "train_on_inputs")
    long = str(reading.get("excess_length_strategy", "drop"))
    texts = sorts.count("text")
    if texts == len(sorts):
        why = "axolotl cuts texts after every sequence_len tokens, each piece without an end token"
        reading.put("tokenization.over_length", "split", "excess_length_strategy", why=why, differs=True)
    elif long == "truncate":
        why = "axolotl cuts off the end, with the end token"
        reading.put("tokenization.over_length", "truncate_completion_right", "excess_length_strategy", why=why, differs=True)
    else:
        why = "texts that are longer than sequence_len are left out, not cut into pieces" if texts else ""
        value = {"raise": "error"}.get(long, "drop")
        reading.put("tokenization.over_length", value, "excess_length_strategy", why=why, differs=bool(why))
    if reading.flag("pretraining_sample_concatenation"):
        reading.refuse("pretraining_sample_concatenation", "texts that attend to each other", "packed rows, which do not", nearest=True)
    else:
        reading.same("pretraining_sample_concatenation", why="packed rows do not attend to each other")
    _put_tokens(reading)


def _put_format_of_pairs(reading: Reading, node: Node, sorts: list[str], key: str) -> None:
    """The format of pairs, which all tasks share; mask and lengths follow from the objective."""
    styles = [_style(node.content[number], sort) for number, sort in enumerate(sorts)]
    if len(set(styles)) > 1:
        other = next(n for n, style in enumerate(styles) if style != styles[0])
        inner = reading.inside(node.content[other], listed(TOOL, "dataset_keys"), f"{key}[{other}]")
        inner.refuse("type", "pairs of several formats in one training", "an experiment for each, the second from the first's model")
    if styles[0] == "chat":
        _put_template(reading, node, [number for number, style in enumerate(styles) if style == "chat"], key)
    else:
        for name in ("chat_template", "chat_template_jinja", "chat_template_kwargs", "default_system_message"):
            reading.none(name, why="the types of the data sets say the format")
        reading.draft.set("tokenization.format.kind", "plain" if styles[0] == "plain" else "chat", [f"{key}[0].type"])
        if styles[0] != "plain":
            reading.draft.set("tokenization.format.template", formats.LLAMA_FACTORY[styles[0]].template(), [f"{key}[0].type"])
    reading.none("pretraining_sample_concatenation", why="of texts")
    _put_tokens(reading)


def _style(dataset: Node, sort: str) -> str:
    kind = dataset.child("type")
    style = str(kind.content).partition(".")[0] if kind and sort == "styled" else sort
    return style if style in ("chat", "chatml", "llama3") else "plain"


def _put_template(reading: Reading, node: Node, chats: list[int], key: str) -> None:
    """The chat template: that of the data sets, or of the configuration."""
    given: dict[tuple[Any, Any], tuple[Reading, str]] = {}
    for number in chats:
        inner = reading.inside(node.content[number], listed(TOOL, "dataset_keys"), f"{key}[{number}]")
        own = inner.given("chat_template") or inner.given("chat_template_jinja")
        where = inner if own else reading
        name, jinja = where.get("chat_template"), where.get("chat_template_jinja")
        name = str(name or ("jinja" if jinja else "tokenizer_default"))
        jinja = None if jinja is None else str(jinja)
        given.setdefault((name, jinja), (where, "chat_template_jinja" if jinja and name == "jinja" else "chat_template"))
        for each in ("chat_template", "chat_template_jinja"):
            inner.taken(each, ours="tokenization.format") if own else inner.same(each, why="the one of the configuration")
    if len(given) > 1:
        inner, which = list(given.values())[1]
        inner.refuse(which, "several chat templates in one training", "an experiment for each, the second from the first's model")
    (name, jinja), (where, which) = next(iter(given.items()))
    reading.draft.set("tokenization.format.kind", "chat", [f"{key}[{chats[0]}].type"])
    for each in ("chat_template", "chat_template_jinja"):
        if where is not reading:
            reading.none(each, why="the data sets have their own")
        else:
            reading.taken(each, ours="tokenization.format")
    name = str(name)
    system = reading.get("default_system_message")
    if name == "jinja":
        where.put("tokenization.format.template", str(jinja), which)
    elif name in formats.AXOLOTL:
        text = formats.AXOLOTL[name].template(str(system) if system is not None else None)
        where.put("tokenization.format.template", text, which)
    elif name == "tokenizer_default" or name.startswith("tokenizer_default_fallback_"):
        where.taken(
            which,
            ours="tokenization.format",
            why="the tokenizer's own; if a hub model has it in chat_template.jinja, add that to model.tokenizer_files",
        )
    else:
        why = f"axolotl brings its own template {name}; here it is the tokenizer's own"
        where.put("tokenization.format.kind", "chat", which, why=why, differs=True)
    if system is None:
        reading.same("default_system_message", why="none")
    elif name in formats.AXOLOTL:
        reading.taken("default_system_message", ours="tokenization.format.template")
    else:
        reading.refuse("default_system_message", "another default of the system prompt", "tasks.<name>.system", nearest=True)
    variables = reading.get("chat_template_kwargs")
    if isinstance(variables, dict) and all(isinstance(v, str | int | bool) for v in variables.values()):
        reading.put("tokenization.format.variables", variables, "chat_template_kwargs")
    elif variables:
        reading.refuse("chat_template_kwargs", "variables of the template that are lists or tables", "texts, integers, true and false")
    else:
        reading.same("chat_template_kwargs", why="no variables")


def _put_tokens(reading: Reading) -> None:
    """Tokens that are added or renamed."""
    added = [*reading.names("tokens")]
    node = reading.child("special_tokens")
    if node is None or not isinstance(node.content, dict):
        reading.same("special_tokens", why="the tokenizer's own")
    else:
        inner = reading.inside(node, listed(TOOL, "special_token_keys"), "special_tokens")
        added += inner.names("additional_special_tokens")
        inner.none("pad_token", why="padding is never learned, whichever token it is")
        inner.none("unk_token", why="the tokenizer's own")
        for key in ("bos_token", "eos_token"):
            if inner.given(key):
                why = "rows begin and end with the tokens of the tokenizer or the template; another one goes into tokenizer_config.json"
                inner.taken(key, ours="tokenization", why=why, differs=True)
            else:
                inner.same(key, why="the tokenizer's own")
        inner.taken("additional_special_tokens", ours="tokenization.special_tokens")
        reading.taken("special_tokens", ours="tokenization.special_tokens")
        for key in [*inner.strangers()]:
            inner.ignored(key, f"its schema (version {version(TOOL)}) has no such key here", inner.known)
    if added:
        reading.put("tokenization.special_tokens", tuple(dict.fromkeys(added)), "tokens", "special_tokens")
    else:
        reading.same("tokens", why="none")


def _put_splits(reading: Reading, request: Request, tasks: list[str], node: Node) -> None:
    """Held-out rows: a share of the rows, or data sets of their own."""
    size = reading.number("val_set_size", 0.0) or 0.0
    tests = reading.child("test_datasets")
    if tests is not None and size:
        reading.conflict("test_datasets", "val_set_size", hint="axolotl takes one of them; remove the other")
    common.put_validation_rows(reading, "val_set_size", tasks, "axolotl")
    if tests is None:
        common.put_unseen_rows(reading.draft, tasks)
        reading.same("test_datasets", why="none")
        return
    same_length = isinstance(tests.content, tuple) and len(tests.content) == len(tasks)
    if not same_length:
        feature = f"{len(tests.content) if isinstance(tests.content, tuple) else 'other'} test data sets for {len(tasks)} data sets"
        common.put_unseen_rows(reading.draft, tasks)
        reading.refuse("test_datasets", feature, "as many as data sets, in the same order: tasks.<name>.split.test_source", nearest=True)
        return
    reading.taken("test_datasets", ours="tasks.<name>.split.test_source")
    for number, (task, dataset) in enumerate(zip(tasks, tests.content, strict=True)):
        inner = reading.inside(dataset, listed(TOOL, "dataset_keys"), f"test_datasets[{number}]")
        split = ("tasks", task, "split")
        put_rows(inner, request, (*split, "test_source"), _SOURCE_KEYS)
        theirs = node.content[number]
        for key in dataset.content:
            same = theirs.child(key) is not None and theirs.child(key).plain() == dataset.content[key].plain()
            if key not in _SOURCE_KEYS.values():
                inner.same(key, why="as in the data set") if same else inner.refuse(
                    key, f"a test set with another {key} than its data set", "the same, or a task of its own in evaluation.held_out"
                )


def _put_method(reading: Reading, request: Request) -> None:
    """What is trained: the whole model, or an adapter."""
    method = "training.method"
    adapter = reading.get("adapter")
    four, eight = reading.flag("load_in_4bit"), reading.flag("load_in_8bit")
    if four and eight:
        reading.conflict("load_in_4bit", "load_in_8bit", hint="keep one of them")
    adapters = (
        *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_modules_to_save", "peft"),
        *("peft_use_dora", "peft_use_rslora", "peft_init_lora_weights", "bnb_config_kwargs"),
    )
    if adapter is None:
        reading.put(f"{method}.kind", "full", "adapter")
        if four or eight:
            reading.refuse("load_in_4bit" if four else "load_in_8bit", "training of quantised weights in full", "adapter: qlora")
        reading.none("load_in_4bit", "load_in_8bit", why="no adapter is trained")
        for key in adapters:
            reading.none(key, why="no adapter is trained")
        if reading.given("lora_model_dir"):
            reading.none("lora_model_dir", why="no adapter is trained")
        else:
            reading.same("lora_model_dir", why="none")
        return
    if adapter not in ("lora", "qlora"):
        reading.refuse("adapter", f"the adapter {adapter}", "adapter: lora", nearest=True)
        reading.draft.set(f"{method}.kind", "lora", [f"nearest to adapter: {adapter}"])
    quantised = four or eight
    if adapter == "qlora" and not quantised:
        why = "axolotl refuses qlora without load_in_4bit; 4 bits are meant"
        reading.put(f"{method}.kind", "qlora", "adapter", why=why, differs=True)
    elif adapter in ("lora", "qlora"):
        reading.put(f"{method}.kind", "qlora" if quantised else "lora", "adapter", "load_in_4bit", "load_in_8bit")
    if quantised:
        reading.put(f"{method}.bits", 4 if four else 8, "load_in_4bit" if four else "load_in_8bit")
    reading.same("load_in_4bit", "load_in_8bit", why="no quantisation")
    if not reading.given("lora_r"):
        reading.put(f"{method}.r", 8, "lora_r", why="peft's default; axolotl has none", differs=True)
    else:
        reading.put(f"{method}.r", reading.integer("lora_r"), "lora_r")
    reading.put(f"{method}.lora_alpha", reading.integer("lora_alpha", 8), "lora_alpha")
    reading.put(f"{method}.lora_dropout", float(reading.number("lora_dropout", 0.0) or 0.0), "lora_dropout")
    _put_targets(reading, method)
    if reading.given("lora_modules_to_save"):
        reading.put(f"{method}.modules_to_save", reading.names("lora_modules_to_save"), "lora_modules_to_save")
    else:
        reading.same("lora_modules_to_save", why="none")
    for key, ours in (("peft_use_dora", "use_dora"), ("peft_use_rslora", "use_rslora")):
        reading.put(f"{method}.{ours}", reading.flag(key), key)
    _put_initialization(reading, method)
    if quantised:
        _put_quantisation(reading, method)
    else:
        reading.none("bnb_config_kwargs", why="no quantisation")
    if reading.given("lora_model_dir"):
        folder = str(reading.get("lora_model_dir"))
        local = request.found(folder)
        reading.put("model.adapter", request.shown(local) if local else folder, "lora_model_dir")
    else:
        reading.same("lora_model_dir", why="a new adapter")


def _put_targets(reading: Reading, method: str) -> None:
    modules = reading.get("lora_target_modules")
    linear = reading.flag("lora_target_linear")
    if isinstance(modules, str) and not re.fullmatch(r"[\w, ]+", modules):
        reading.refuse(
            "lora_target_modules", "layers by a pattern", 'training.method.target_modules = "all-linear", or names', nearest=True
        )
        reading.same("lora_target_linear", why="the pattern decides")
        return
    listed = reading.names("lora_target_modules")
    if modules == "all-linear" or (linear and not listed):
        reading.put(f"{method}.target_modules", "all-linear", "lora_target_linear", "lora_target_modules")
    elif listed:
        why = "axolotl adds all linear layers to these" if linear else ""
        reading.put(f"{method}.target_modules", "all-linear" if linear else listed, "lora_target_modules", "lora_target_linear", why=why)
    elif reading.given("lora_target_parameters"):
        reading.same("lora_target_modules", "lora_target_linear", why="lora_target_parameters decides")
    else:
        why = "neither is set: peft chooses layers by the model's type, such as q_proj and v_proj"
        reading.put(f"{method}.target_modules", ("q_proj", "v_proj"), "lora_target_modules", "lora_target_linear", why=why, differs=True)


def _put_initialization(reading: Reading, method: str) -> None:
    value = reading.get("peft_init_lora_weights", True)
    if value is True:
        reading.same("peft_init_lora_weights", why="peft's default")
    elif value in ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16"):
        reading.put(f"{method}.init_lora_weights", value, "peft_init_lora_weights")
    else:
        reading.refuse("peft_init_lora_weights", f"the initialization {value}", "gaussian, orthogonal, olora, pissa", nearest=True)
    peft = reading.get("peft")
    if peft:
        reading.refuse("peft", "LoftQ", 'training.method = "qlora" without it', nearest=True)
    else:
        reading.same("peft", why="no LoftQ")


def _put_quantisation(reading: Reading, method: str) -> None:
    options = reading.get("bnb_config_kwargs") or {}
    options = options if isinstance(options, dict) else {}
    names_of = {"bnb_4bit_quant_type": "quant_type", "bnb_4bit_use_double_quant": "double_quant"}
    for theirs, ours in names_of.items():
        if theirs in options:
            reading.put(f"{method}.{ours}", options[theirs], "bnb_config_kwargs")
    if other := sorted(set(options) - names_of.keys() - {"llm_int8_has_fp16_weight"}):
        reading.refuse("bnb_config_kwargs", f"options of bitsandbytes: {', '.join(other)}", "leave them out", nearest=True)
    reading.same("bnb_config_kwargs", why="nf4, with double quantisation")


def _put_training(reading: Reading, request: Request) -> None:
    t = "training"
    if reading.given("learning_rate"):
        reading.put(f"{t}.learning_rate", float(reading.number("learning_rate") or 0), "learning_rate")
    else:
        reading.put(f"{t}.learning_rate", 5e-5, "learning_rate", why="transformers' default; axolotl asks for a value")
    if reading.given("batch_size") and not reading.given("gradient_accumulation_steps"):
        total, micro = reading.integer("batch_size") or 1, reading.integer("micro_batch_size", 1) or 1
        reading.put(f"{t}.global_batch.rows", total * request.devices, "batch_size", why=f"of each device, × {request.devices}")
        reading.put("resources.micro_batch", micro, "micro_batch_size")
        reading.same("gradient_accumulation_steps", why="batch_size says it")
    else:
        common.put_batch(reading, request, "micro_batch_size", "gradient_accumulation_steps", (1, 1))
        if reading.given("batch_size"):
            micro, steps = reading.integer("micro_batch_size", 1) or 1, reading.integer("gradient_accumulation_steps", 1) or 1
            if reading.integer("batch_size") != micro * steps:
                reading.conflict("gradient_accumulation_steps", "batch_size", hint="keep gradient_accumulation_steps")
            reading.taken("batch_size", ours="training.global_batch.rows")
        else:
            reading.same("batch_size", why="gradient_accumulation_steps says it")
    common.put_epochs(reading, "num_epochs", "max_steps", 1.0)
    schedule = common.put_schedule(reading, "lr_scheduler", "cosine", "lr_scheduler_kwargs", "cosine_min_lr_ratio")
    common.put_warmup(reading, "warmup_steps", "warmup_ratio", 0.03, schedule)
    common.put_optimizer(reading, "optimizer", "adamw_torch_fused")
    common.put_adam(reading, "adam_beta1", "adam_beta2", "adam_epsilon")
    reading.put(f"{t}.weight_decay", float(reading.number("weight_decay", 0.0) or 0.0), "weight_decay")
    reading.put(f"{t}.max_grad_norm", float(reading.number("max_grad_norm", 1.0) or 1.0), "max_grad_norm")
    noise = reading.one_of("neftune_noise_alpha", "noisy_embedding_alpha")
    for key in ("neftune_noise_alpha", "noisy_embedding_alpha"):
        if noise:
            reading.put(f"{t}.neftune_noise_alpha", float(reading.number(noise) or 0), noise)
            reading.taken(key, ours=f"{t}.neftune_noise_alpha")
        else:
            reading.same(key, why="no noise")
    bf16 = reading.get("bf16", "auto" if not reading.given("fp16") and not reading.given("float16") else False)
    bf16 = True if bf16 == "full" else bf16
    half = reading.flag("bfloat16")
    fp16 = reading.flag("fp16") or reading.flag("float16")
    if fp16 and bf16 == "auto":
        bf16 = False
    tf32 = reading.get("tf32", "auto")
    precision = ("bf16", "fp16", "bfloat16", "float16", "float32", "tf32")
    common.put_precision(reading, bf16 or half, fp16, tf32 is True, precision)
    if reading.draft.value("training.method.kind") == "qlora" and reading.draft.value("training.method.bits") == 4:
        common.put_compute_dtype(reading.draft)
    _put_batching(reading)
    _put_validation(reading)


def _put_batching(reading: Reading) -> None:
    packing = reading.flag("sample_packing")
    if packing and reading.get("rl"):
        reading.wrong("sample_packing", f"false for rl: {reading.get('rl')}: axolotl would stop at it")
    if packing:
        reading.put("training.batching.kind", "packed", "sample_packing", why="bins of sequence_len tokens; a batch counts bins")
        reading.none("group_by_length", "batch_flattening", why="rows are packed")
        return
    reading.same("sample_packing", why="off")
    flat = reading.get("batch_flattening")
    if flat is True:
        reading.put("training.batching.kind", "padding_free", "batch_flattening")
    else:
        reading.same("batch_flattening", why="off")
    reading.same("group_by_length", why="rows of a batch are grouped by length")


def _put_validation(reading: Reading) -> None:
    """Validations during the training."""
    reading.one_of("eval_strategy", "evaluation_strategy")
    every, per_epoch = reading.number("eval_steps"), reading.number("evals_per_epoch")
    if every and per_epoch:
        reading.conflict("eval_steps", "evals_per_epoch", hint="keep one of them")
    total = reading.draft.value("training.steps")
    ours = "training.validation.every_steps"
    held_out = (reading.number("val_set_size", 0.0) or 0) > 0 or reading.given("test_datasets")
    if held_out and every and every >= 1:
        reading.put(ours, int(every), "eval_steps")
    elif held_out and every and total:
        reading.put(ours, max(1, round(every * total)), "eval_steps")
    elif held_out and (every or per_epoch):
        key = "eval_steps" if every else "evals_per_epoch"
        why = "a share of a number of steps that is not known yet: validations are every 100 steps"
        reading.put(ours, 100, key, why=why, differs=True)
    for key in ("eval_steps", "evals_per_epoch", "eval_strategy", "evaluation_strategy"):
        if reading.given(key) and not held_out:
            reading.none(key, why="there are no validation rows")
        else:
            reading.same(key, why="one validation at the end, and one every so many steps if that is set")
    patience = reading.integer("early_stopping_patience")
    if patience:
        reading.put("training.validation.patience", patience, "early_stopping_patience")
    else:
        reading.same("early_stopping_patience", why="no early stop")
    if any(path[:2] == ("training", "validation") for path in reading.draft.settings):
        reading.put("training.validation.keep_best", reading.flag("load_best_model_at_end") or bool(patience), "load_best_model_at_end")
    else:
        reading.same("load_best_model_at_end", why="the last weights are kept")


_ATTENTIONS = {
    "xformers_attention": "xformers",
    "sage_attention": "sage",
    "flex_attention": "flex_attention",
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}


def _put_resources(reading: Reading, request: Request) -> None:
    chosen = reading.get("attn_implementation")
    flags = [key for key in _ATTENTIONS if reading.flag(key)]
    if chosen and flags and _ATTENTIONS[flags[0]] != chosen:
        reading.conflict(flags[0], "attn_implementation", hint="keep attn_implementation")
    key = "attn_implementation" if chosen or not flags else flags[0]
    common.put_attention(reading, key, str(chosen) if chosen else _ATTENTIONS[flags[0]] if flags else None)
    for name in ("attn_implementation", *_ATTENTIONS):
        if name != key:
            reading.same(name, why="the attention is said elsewhere" if reading.given(name) else "not set")
    checkpointing = reading.get("gradient_checkpointing", False)
    reading.put("resources.gradient_checkpointing", bool(checkpointing), "gradient_checkpointing")
    reading.put("resources.torch_compile", reading.get("torch_compile", False) is True, "torch_compile")
    reports = [
        name for name, key in (("tensorboard", "use_tensorboard"), ("wandb", "use_wandb"), ("mlflow", "use_mlflow")) if reading.get(key)
    ]
    if reading.given("wandb_project") and "wandb" not in reports and reading.get("use_wandb") is not False:
        reports.append("wandb")
    reading.put("resources.report_to", tuple(reports), "use_wandb", "wandb_project", "use_tensorboard", "use_mlflow")
    saves = reading.number("save_steps")
    if saves and saves >= 1:
        reading.put("resources.checkpoints.every_steps", int(saves), "save_steps")
    else:
        reading.same("save_steps", why="a checkpoint every ten minutes")
    batch = reading.integer("eval_batch_size")
    if batch:
        reading.put("resources.evaluation_batch", batch, "eval_batch_size")
    else:
        reading.same("eval_batch_size", why="not set")
    common.put_zero(reading, request, "deepspeed")
    common.put_fsdp(reading)
