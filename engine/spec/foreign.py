"""Maps configuration keys of other trainers to keys of a spec, for hints on keys that were copied from their configurations.

Sources: transformers' `TrainingArguments`, TRL's `SFTConfig` and `ModelConfig`, PEFT's `LoraConfig`, axolotl's configuration reference
(docs.axolotl.ai/docs/config-reference.html) and LLaMA-Factory's arguments (src/llamafactory/hparams). Names that specs share with PEFT
are handled by `engine.spec.places`.
"""

from collections.abc import Mapping

_MODEL_ID = "model.id: with model.revision, the full commit hash (40 hex digits); for a local folder, model.path"
_MICRO_BATCH = "resources.micro_batch: rows per device per forward pass; the global batch size is training.global_batch.rows"
_GLOBAL_BATCH = "training.global_batch.rows: rows per optimizer step over all devices; gradient accumulation steps follow from it"
_EPOCHS = "training.epochs"
_STEPS = "training.steps"
_MAX_LENGTH = "tokenization.max_length"
_QUANTIZED = 'training.method: kind = "qlora", with bits = 4 or 8'
_PRECISION = 'training.precision: "float32", "tf32", "bfloat16" or "float16"'
_VALIDATION = "training.validation.every_steps"
_CHECKPOINTS = "resources.checkpoints.every_steps: or every_minutes"
_BETAS = "training.betas: both values, [0.9, 0.999]"
_TARGETS = 'training.method.target_modules: "all-linear", or names of layers'
_TEMPLATE = 'tokenization.format: kind = "chat", with template or template_file if the tokenizer has no chat template'
_MASK = 'tokenization.mask: "completion", "assistant" or "full"'
_DATA = "tasks.<name>.source"
_PACKING = 'training.batching: "packed", "padding_free" or "padded"'
_ATTENTION = "resources.attention"
_WARMUP = "training.schedule.warmup_ratio: a fraction of all optimizer steps"
_REPORT = 'resources.report_to: ["tensorboard"], ["wandb"] or ["mlflow"]'
_ZERO = "resources.zero: a ZeRO stage, or a table with offloading"
_PATIENCE = "training.validation.patience: validations without improvement of the loss"
_BEST = "training.validation.keep_best"
_KERNELS = 'resources.kernels: "liger"'
_SAMPLING = 'evaluation.decoding: kind = "sample", with temperature, top_k and top_p'

FOREIGN: Mapping[str, str] = {
    # Model and tokenizer
    **dict.fromkeys(
        (
            *(
                "hub",
                "hub_id",
                "huggingface_id",
                "model_name_or_id",
                "checkpoint",
                "repo",
                "repo_id",
                "model_id",
                "model_name",
                "model_name_or_path",
                "base_model",
            ),
            *("base_model_name_or_path", "pretrained_model_name_or_path", "tokenizer_name_or_path"),
        ),
        _MODEL_ID,
    ),
    **dict.fromkeys(("model_revision", "revision_of_model", "commit_hash"), "model.revision"),
    **dict.fromkeys(("base_model_config", "tokenizer_config"), _MODEL_ID),
    **dict.fromkeys(("add_tokens", "add_special_tokens", "new_special_tokens", "additional_special_tokens"), "tokenization.special_tokens"),
    **dict.fromkeys(
        ("load_in_4bit", "load_in_8bit", "quantization_bit", "quantization_config", "use_bnb_nested_quant", "loftq_config"), _QUANTIZED
    ),
    **dict.fromkeys(("bnb_4bit_quant_type", "bnb_4bit_quant_storage"), "training.method.quant_type"),
    **dict.fromkeys(("bnb_4bit_use_double_quant", "double_quantization"), "training.method.double_quant"),
    **dict.fromkeys(("bnb_4bit_compute_dtype",), "training.method.compute_dtype"),
    **dict.fromkeys(
        ("attn_implementation", "flash_attn", "flash_attention", "flash_attention_2", "use_flash_attention_2", "sdp_attention"), _ATTENTION
    ),
    **dict.fromkeys(("xformers_attention", "eager_attention"), _ATTENTION),
    # Data and tokens
    **dict.fromkeys(
        (
            *("dataset", "datasets", "dataset_name", "dataset_path", "dataset_dir", "dataset_config", "data_files", "train_file"),
            *("dataset_train_split", "train_dataset", "pretraining_dataset", "ds_type", "data_path"),
        ),
        _DATA,
    ),
    **dict.fromkeys(
        ("dataset_test_split", "eval_dataset", "test_datasets", "validation_file"),
        "tasks.<name>.split.test_source: or split.test, a fraction",
    ),
    **dict.fromkeys(("val_set_size", "val_size", "validation_split"), "tasks.<name>.split.validation: a fraction of the rows"),
    **dict.fromkeys(("test_size", "test_split"), "tasks.<name>.split.test: a fraction of the rows"),
    **dict.fromkeys(("max_samples", "max_train_samples", "max_rows"), "tasks.<name>.source.limit"),
    **dict.fromkeys(("dataset_text_field", "text_column"), "tasks.<name>.source.columns"),
    **dict.fromkeys(
        ("max_seq_length", "max_seq_len", "max_length", "sequence_len", "seq_length", "seq_len", "cutoff_len", "model_max_length"),
        _MAX_LENGTH,
    ),
    **dict.fromkeys(("block_size", "max_source_length", "context_length", "max_position_embeddings"), _MAX_LENGTH),
    **dict.fromkeys(("truncation_mode", "excess_length_strategy"), "tokenization.over_length"),
    **dict.fromkeys(("generation_max_length", "max_completion_length"), "tasks.<name>.max_new_tokens"),
    **dict.fromkeys(("chat_template", "chat_template_path", "chat_template_jinja", "template", "prompt_template"), _TEMPLATE),
    **dict.fromkeys(("default_system", "system_prompt"), "tasks.<name>.system"),
    **dict.fromkeys(
        ("train_on_inputs", "train_on_prompt", "completion_only_loss", "assistant_only_loss", "train_on_responses_only"), _MASK
    ),
    **dict.fromkeys(("roles_to_train", "train_on_eos", "mask_history"), _MASK),
    **dict.fromkeys(("interleave_probs", "mix_strategy"), "mixture.sampler"),
    **dict.fromkeys(("shuffle_merged_datasets", "data_seed", "seed"), "experiment.seed"),
    # Batch and length
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_device_batch_size", "micro_batch_size", "train_batch_size", "auto_find_batch_size"),
        _MICRO_BATCH,
    ),
    **dict.fromkeys(("gradient_accumulation_steps", "batch_size", "global_batch_size", "total_batch_size"), _GLOBAL_BATCH),
    **dict.fromkeys(("per_device_eval_batch_size", "eval_batch_size"), "resources.evaluation_batch"),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "n_epochs"), _EPOCHS),
    **dict.fromkeys(("max_steps", "num_steps", "train_steps", "max_train_steps"), _STEPS),
    **dict.fromkeys(
        (
            *("packing", "packing_strategy", "sample_packing", "padding_free", "neat_packing", "group_by_length", "pad_to_sequence_len"),
            *("multipack_real_batches", "eval_packing", "eval_sample_packing", "train_sampling_strategy"),
        ),
        _PACKING,
    ),
    # Optimizer and schedule
    **dict.fromkeys(("lr", "peak_lr"), "training.learning_rate"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler", "lr_scheduler_kwargs"), "training.schedule.kind"),
    **dict.fromkeys(("warmup_ratio", "warmup_steps", "num_warmup_steps", "warmup"), _WARMUP),
    **dict.fromkeys(("cosine_min_lr_ratio", "min_lr_ratio"), "training.schedule.floor: a fraction of the learning rate"),
    **dict.fromkeys(("optim", "optim_args", "use_adafactor"), "training.optimizer"),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_betas", "beta1", "beta2"), _BETAS),
    **dict.fromkeys(("adam_epsilon", "adam_eps"), "training.optimizer.eps"),
    **dict.fromkeys(
        ("max_gradient_norm", "gradient_clipping", "grad_clip", "gradient_clip_val", "clip_grad_norm"), "training.max_grad_norm"
    ),
    **dict.fromkeys(("neftune_alpha", "noisy_embedding_alpha"), "training.neftune_noise_alpha"),
    **dict.fromkeys(("bf16", "fp16", "pure_bf16", "tf32", "dtype", "torch_dtype", "mixed_precision", "compute_type"), _PRECISION),
    # Adapters
    **dict.fromkeys(
        ("adapter", "finetuning_type", "peft_type", "use_peft", "peft_config", "lora_model_dir", "adapter_name_or_path", "lora"),
        'training.method: "lora", "qlora", "ia3", "prompt_tuning", "prefix_tuning" or "full"',
    ),
    **dict.fromkeys(("rank", "lora_r", "lora_rank", "lora_dim"), "training.method.r"),
    **dict.fromkeys(("alpha", "lora_scale"), "training.method.lora_alpha"),
    **dict.fromkeys(("dropout",), "training.method.lora_dropout"),
    **dict.fromkeys(("lora_target", "lora_target_modules", "lora_target_linear", "target_parameters", "lora_target_parameters"), _TARGETS),
    **dict.fromkeys(("lora_modules_to_save", "additional_target", "unfrozen_parameters"), "training.method.modules_to_save"),
    **dict.fromkeys(("peft_use_dora", "lora_use_dora"), "training.method.use_dora"),
    **dict.fromkeys(("peft_use_rslora", "lora_use_rslora", "rslora"), "training.method.use_rslora"),
    **dict.fromkeys(("peft_init_lora_weights", "pissa_init", "pissa_iter"), "training.method.init_lora_weights"),
    **dict.fromkeys(("lora_bias",), "training.method.bias"),
    # Validation and evaluation
    **dict.fromkeys(("eval_steps", "evaluation_steps", "eval_strategy", "evaluation_strategy", "evals_per_epoch"), _VALIDATION),
    **dict.fromkeys(("do_eval", "eval_on_start", "eval_delay"), "training.validation"),
    **dict.fromkeys(("early_stopping_patience", "early_stopping_steps"), _PATIENCE),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _BEST),
    **dict.fromkeys(("predict_with_generate", "do_predict", "compute_metrics"), "evaluation.metrics"),
    **dict.fromkeys(("do_sample", "generation_config"), _SAMPLING),
    **dict.fromkeys(("lm_eval_tasks", "eval_tasks"), "benchmarks.tasks"),
    # How it runs
    **dict.fromkeys(("save_steps", "save_strategy", "saves_per_epoch", "save_only_model", "checkpoint_steps"), _CHECKPOINTS),
    **dict.fromkeys(("use_tensorboard", "wandb_project", "use_wandb", "use_mlflow", "mlflow_tracking_uri"), _REPORT),
    **dict.fromkeys(("deepspeed", "deepspeed_config", "fsdp", "fsdp_config", "fsdp_version", "zero_stage"), _ZERO),
    **dict.fromkeys(
        ("activation_checkpointing", "use_gradient_checkpointing", "disable_gradient_checkpointing"), "resources.gradient_checkpointing"
    ),
    **dict.fromkeys(
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"), "resources.gradient_checkpointing: true or false"
    ),
    **dict.fromkeys(("use_liger_kernel", "enable_liger_kernel", "use_liger", "liger_kernel_config"), _KERNELS),
    **dict.fromkeys(("compile", "torch_compile_backend", "torch_compile_mode"), "resources.torch_compile: true or false"),
    **dict.fromkeys(("nproc_per_node", "num_gpus", "num_processes"), "resources.devices"),
    **dict.fromkeys(("num_nodes", "nnodes", "num_machines"), "resources.nodes"),
    **dict.fromkeys(("run_name", "experiment_name", "wandb_name", "wandb_run_name"), "experiment.name"),
    # A model from scratch
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), "model.architecture.layers"),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), "model.architecture.heads"),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads"), "model.architecture.kv_heads"),
    **dict.fromkeys(("n_embd", "d_model", "n_embed"), "model.architecture.hidden_size"),
    **dict.fromkeys(("d_ff", "n_inner", "ffn_dim"), "model.architecture.intermediate_size"),
}
"""The key of a spec for each foreign name, followed by a colon and a remark on its value if one is needed."""

_OUTPUT = "each step writes to artifacts/<step>"
_LOGGING = "every optimizer step is logged; to send metrics to another logger, set resources.report_to"
_RESUME = "an interrupted training resumes from its last checkpoint: run engine build again"
_KEPT = "the last checkpoint is kept while the training runs; training.validation.keep_best keeps the best weights"
_PUBLISH = "a build publishes nothing; copy a finished adapter with: engine adapters --fetch"
_LAUNCH = "the step launches its processes itself: set resources.devices and resources.nodes"
_LOADER = "separate steps tokenize the rows; there is no data loader to configure"
_DETERMINISTIC = "trainings are deterministic by default: see resources.numerics"
_NONE = "leave it out"

WITHOUT_KEY: Mapping[str, str] = {
    **dict.fromkeys(("output_dir", "logging_dir", "overwrite_output_dir", "dataset_prepared_path", "cache_dir"), _OUTPUT),
    **dict.fromkeys(
        (
            *("logging_steps", "logging_strategy", "logging_first_step", "log_on_each_node", "logging_nan_inf_filter", "log_level"),
            *("log_level_replica", "disable_tqdm", "include_num_input_tokens_seen", "include_tokens_per_second", "plot_loss", "project"),
            *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "debug", "wandb_entity"),
            *("wandb_watch", "wandb_log_model"),
        ),
        _LOGGING,
    ),
    **dict.fromkeys(("resume_from_checkpoint", "auto_resume_from_checkpoints", "ignore_data_skip", "enable_jit_checkpoint"), _RESUME),
    **dict.fromkeys(("restore_callback_states_from_checkpoint",), _RESUME),
    **dict.fromkeys(("save_total_limit", "save_on_each_node", "save_safetensors"), _KEPT),
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
            *("export_dir", "export_hub_model_id"),
        ),
        _PUBLISH,
    ),
    **dict.fromkeys(("local_rank", "ddp_backend", "ddp_timeout", "device_map", "use_cpu", "no_cuda", "accelerator_config"), _LAUNCH),
    **dict.fromkeys(
        ("parallelism_config", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"), _LAUNCH
    ),
    **dict.fromkeys(
        (
            *("dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
            *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "remove_unused_columns"),
            *("preprocessing_num_workers", "dataset_num_proc", "dataset_processes", "overwrite_cache", "streaming", "dataset_kwargs"),
            *("pad_token", "pad_to_multiple_of", "dataset_streaming", "shuffle_dataset", "length_column_name"),
        ),
        _LOADER,
    ),
    **dict.fromkeys(("full_determinism", "deterministic"), _DETERMINISTIC),
    **dict.fromkeys(
        (
            *("label_smoothing_factor", "average_tokens_across_devices", "bf16_full_eval", "fp16_full_eval", "use_cache"),
            *("torch_empty_cache_steps", "prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object"),
            *("eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics", "label_names", "do_train", "sortish_sampler"),
            *("generation_num_beams", "optim_target_modules", "trust_remote_code", "use_fast_tokenizer", "strict", "tokenizer_type"),
            *("model_type", "is_llama_derived_model", "stage", "loraplus_lr_ratio", "galore_rank", "rope_scaling", "resize_vocab"),
            *("eos_token", "activation_offloading", "loss_type", "model_init_kwargs", "special_tokens_map", "lora_on_cpu"),
            *("merge_lora", "relora_steps", "lora_task_type", "dataset_batch_size", "ignore_bias_buffers", "gradient_checkpointing_ratio"),
            *("task_type", "auto_mapping", "peft_version", "inference_mode", "exclude_modules", "fan_in_fan_out", "layers_to_transform"),
            *("layers_pattern", "rank_pattern", "alpha_pattern", "megatron_config", "megatron_core", "trainable_token_indices"),
            *("eva_config", "corda_config", "lora_ga_config", "velora_config", "alora_invocation_tokens", "use_qalora"),
            *("qalora_group_size", "monteclora_config", "layer_replication", "runtime_config", "use_bdlora", "arrow_config"),
            *("kasa_config", "ensure_weight_tying", "router_aux_loss_coef", "init_weights"),
        ),
        _NONE,
    ),
}
"""Foreign names without an equivalent in a spec, and why."""


def foreign_hint(name: str) -> str | None:
    """What to write instead of NAME, a key of another trainer's configuration or command line; None if NAME is unknown."""
    name = name.replace("-", "_").lower()
    if name in FOREIGN:
        key, _, remark = FOREIGN[name].partition(": ")
        return f"in a spec this is {key}" + (f" ({remark})" if remark else "")
    return f"a spec has no such key: {WITHOUT_KEY[name]}" if name in WITHOUT_KEY else None


def key_of(name: str) -> str | None:
    """The key of a spec that corresponds to the foreign NAME, without the remark; None if NAME is unknown."""
    return FOREIGN[name].partition(": ")[0] if name in FOREIGN else None
