"""Maps configuration keys of other trainers to keys of a spec, for hints on keys that were copied from their configurations.

Sources: transformers' `TrainingArguments`, TRL's `SFTConfig` and `ModelConfig`, PEFT's `LoraConfig`, axolotl's configuration
(src/axolotl/utils/schemas) and LLaMA-Factory's arguments (src/llamafactory/hparams). Names that specs share with them are handled by
`engine.spec.places`.
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
_MAX_NEW_TOKENS = "tasks.<name>.max_new_tokens"
_LAYOUT = "tasks.<name>.layout: conversations in any usual layout are recognized; tasks.<name>.source.columns renames other columns"
_TEMPLATE_VARIABLES = "tokenization.format.variables: what the chat template gets"
_SPECIAL_TOKENS = "tokenization.special_tokens"
_ADAPTER = "model.adapter: an adapter that was trained elsewhere; model.experiment goes on with one of yours"
_OPTIMIZER = 'training.optimizer: "adamw", "paged_adamw", "adamw_8bit" or "adafactor"'
_BENCHMARKS = "benchmarks.tasks"
_DEVICES = "resources.devices"
_NODES = "resources.nodes"
_COMPILE = "resources.torch_compile: true or false"
_NAME = "experiment.name"

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
    **dict.fromkeys(("add_tokens", "add_special_tokens", "new_special_tokens", "additional_special_tokens"), _SPECIAL_TOKENS),
    **dict.fromkeys(("added_tokens_overrides", "new_special_tokens_config"), _SPECIAL_TOKENS),
    "split_special_tokens": "tokenization.control_tokens_in_text",
    "train_from_scratch": "model.architecture",
    "bos_token": "model.tokenizer.bos",
    **dict.fromkeys(
        ("load_in_4bit", "load_in_8bit", "quantization_bit", "quantization_config", "use_bnb_nested_quant", "loftq_config"), _QUANTIZED
    ),
    **dict.fromkeys(("quantization_method", "gptq", "bnb_config_kwargs", "model_quantization_config"), _QUANTIZED),
    "quantization_type": "training.method.quant_type",
    **dict.fromkeys(("bnb_4bit_quant_type", "bnb_4bit_quant_storage"), "training.method.quant_type"),
    **dict.fromkeys(("bnb_4bit_use_double_quant", "double_quantization"), "training.method.double_quant"),
    **dict.fromkeys(("bnb_4bit_compute_dtype",), "training.method.compute_dtype"),
    **dict.fromkeys(
        ("attn_implementation", "flash_attn", "flash_attention", "flash_attention_2", "use_flash_attention_2", "sdp_attention"), _ATTENTION
    ),
    **dict.fromkeys(
        (
            *("xformers_attention", "eager_attention", "flex_attention", "sage_attention", "s2_attention", "sdpa_varlen", "flash_optimum"),
            *("large_head_attention", "flash_attn_d512", "gemma4_hybrid_attn_impl", "fused_attn_kernel"),
        ),
        _ATTENTION,
    ),
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
    **dict.fromkeys(("dataset_text_field", "text_column", "field"), "tasks.<name>.source.columns"),
    **dict.fromkeys(
        (
            *("field_messages", "field_human", "field_model", "field_system", "field_tools", "field_thinking", "conversation", "type"),
            *("message_field_role", "message_field_content", "message_property_mappings", "message_field_training", "roles", "tool_format"),
        ),
        _LAYOUT,
    ),
    **dict.fromkeys(("field_instruction", "field_input", "field_output"), _LAYOUT),
    **dict.fromkeys(("input_format", "no_input_format"), "tasks.<name>.prompts"),
    **dict.fromkeys(("dataset_exact_deduplication",), 'tasks.<name>.cleaning: kind = "duplicates"'),
    **dict.fromkeys(("min_sample_len",), 'tasks.<name>.cleaning: kind = "length"'),
    **dict.fromkeys(
        ("max_seq_length", "max_seq_len", "max_length", "sequence_len", "seq_length", "seq_len", "cutoff_len", "model_max_length"),
        _MAX_LENGTH,
    ),
    **dict.fromkeys(("block_size", "max_source_length", "context_length", "max_position_embeddings"), _MAX_LENGTH),
    **dict.fromkeys(("max_packed_sequence_len", "eval_sequence_len", "max_prompt_len"), _MAX_LENGTH),
    **dict.fromkeys(("truncation_mode", "excess_length_strategy"), "tokenization.over_length"),
    **dict.fromkeys(
        ("generation_max_length", "max_completion_length", "eval_max_new_tokens", "generation_max_new_tokens"), _MAX_NEW_TOKENS
    ),
    **dict.fromkeys(("chat_template", "chat_template_path", "chat_template_jinja", "template", "prompt_template"), _TEMPLATE),
    **dict.fromkeys(("chat_template_kwargs", "enable_thinking", "preserve_thinking"), _TEMPLATE_VARIABLES),
    **dict.fromkeys(("default_system", "default_system_message", "system_prompt", "system_format"), "tasks.<name>.system"),
    **dict.fromkeys(
        ("train_on_inputs", "train_on_prompt", "completion_only_loss", "assistant_only_loss", "train_on_responses_only"), _MASK
    ),
    **dict.fromkeys(("roles_to_train", "train_on_eos", "train_on_eot", "mask_history", "message_field_training_detail"), _MASK),
    **dict.fromkeys(("interleave_probs", "mix_strategy"), "mixture.sampler"),
    **dict.fromkeys(("curriculum_sampling",), 'mixture.sampler: kind = "curriculum"'),
    **dict.fromkeys(("total_num_tokens",), "mixture.total_tokens"),
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
            *("batch_flattening", "sample_packing_bin_size", "sample_packing_group_size", "sample_packing_sequentially"),
        ),
        _PACKING,
    ),
    # Optimizer and schedule
    **dict.fromkeys(("lr", "peak_lr"), "training.learning_rate"),
    **dict.fromkeys(
        ("lr_scheduler_type", "lr_scheduler", "scheduler", "lr_scheduler_kwargs", "cosine_constant_lr_ratio"), "training.schedule.kind"
    ),
    **dict.fromkeys(("warmup_ratio", "warmup_steps", "num_warmup_steps", "warmup", "lr_quadratic_warmup"), _WARMUP),
    **dict.fromkeys(("cosine_min_lr_ratio", "min_lr_ratio"), "training.schedule.floor: a fraction of the learning rate"),
    **dict.fromkeys(
        ("optim", "optim_args", "use_adafactor", "use_adam_mini", "use_apollo", "use_badam", "use_galore", "use_muon"), _OPTIMIZER
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_betas", "beta1", "beta2"), _BETAS),
    **dict.fromkeys(("adam_epsilon", "adam_eps"), "training.optimizer.eps"),
    **dict.fromkeys(
        ("max_gradient_norm", "gradient_clipping", "grad_clip", "gradient_clip_val", "clip_grad_norm"), "training.max_grad_norm"
    ),
    **dict.fromkeys(("neftune_alpha", "noisy_embedding_alpha"), "training.neftune_noise_alpha"),
    **dict.fromkeys(("bf16", "fp16", "pure_bf16", "tf32", "dtype", "torch_dtype", "mixed_precision", "compute_type"), _PRECISION),
    **dict.fromkeys(("bfloat16", "float16", "float32", "infer_dtype"), _PRECISION),
    # Adapters
    **dict.fromkeys(
        ("adapter", "finetuning_type", "peft_type", "use_peft", "peft_config", "peft", "lora"),
        'training.method: "lora", "qlora", "ia3", "prompt_tuning", "prefix_tuning" or "full"',
    ),
    **dict.fromkeys(("lora_model_dir", "adapter_name_or_path", "adapter_folder"), _ADAPTER),
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
    **dict.fromkeys(("do_causal_lm_eval", "eval_causal_lm_metrics", "compute_accuracy"), "evaluation.metrics"),
    **dict.fromkeys(("num_generation_samples", "eval_table_size"), "evaluation.rows"),
    **dict.fromkeys(("do_sample", "generation_do_sample", "generation_config"), _SAMPLING),
    **dict.fromkeys(("temperature", "generation_temperature"), "evaluation.decoding.temperature"),
    **dict.fromkeys(("top_k", "generation_top_k"), "evaluation.decoding.top_k"),
    **dict.fromkeys(("top_p", "generation_top_p"), "evaluation.decoding.top_p"),
    **dict.fromkeys(("lm_eval_tasks", "eval_tasks", "do_bench_eval", "bench_dataset"), _BENCHMARKS),
    "task_dir": "benchmarks.folder",
    "n_shot": "benchmarks.few_shot",
    **dict.fromkeys(("loss_watchdog_threshold", "loss_watchdog_patience"), "resources.stop_on_divergence: true or false"),
    "merge_lora": "merge",
    "merge_method": "merge.combination",
    **dict.fromkeys(("export_size",), "merge.max_shard_size"),
    # How it runs
    **dict.fromkeys(
        ("save_steps", "save_strategy", "saves_per_epoch", "save_only_model", "save_first_step", "checkpoint_steps"), _CHECKPOINTS
    ),
    **dict.fromkeys(("use_tensorboard", "wandb_project", "use_wandb", "use_mlflow", "mlflow_tracking_uri"), _REPORT),
    **dict.fromkeys(("use_comet", "use_swanlab", "use_trackio", "use_otel_metrics"), _REPORT),
    **dict.fromkeys(("deepspeed", "deepspeed_config", "fsdp", "fsdp_config", "fsdp_version", "zero_stage", "dp_shard_size"), _ZERO),
    **dict.fromkeys(
        ("activation_checkpointing", "use_gradient_checkpointing", "disable_gradient_checkpointing"), "resources.gradient_checkpointing"
    ),
    **dict.fromkeys(
        (
            "gradient_checkpointing_kwargs",
            "activation_checkpointing_kwargs",
            "selective_checkpointing",
            "layer_offloading",
            "use_unsloth_gc",
        ),
        "resources.gradient_checkpointing: true or false",
    ),
    **dict.fromkeys(
        ("use_liger_kernel", "enable_liger_kernel", "use_liger", "liger_kernel_config", "use_kernels", "use_unsloth"), _KERNELS
    ),
    **dict.fromkeys(("chunked_cross_entropy", "flash_attn_cross_entropy", "flash_attn_fuse_mlp", "flash_attn_rms_norm"), _KERNELS),
    **dict.fromkeys(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"), _KERNELS),
    **dict.fromkeys(("compile", "torch_compile_backend", "torch_compile_mode", "torch_compile_options", "deepcompile"), _COMPILE),
    **dict.fromkeys(("nproc_per_node", "num_gpus", "num_processes", "world_size", "ddp", "ray_num_workers"), _DEVICES),
    **dict.fromkeys(("num_nodes", "nnodes", "num_machines"), _NODES),
    **dict.fromkeys(("run_name", "experiment_name", "wandb_name", "wandb_run_name", "mlflow_experiment_name", "mlflow_run_name"), _NAME),
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
_NO_PREFERENCES = (
    "training.objective has dpo, kto, orpo and simpo, with keys of their own; there is no training on scores or by reinforcement"
)
_NO_IMAGES = "rows are text; there is no training on images, audio or video"
_SERVING = "a build serves nothing; engine adapters --fetch writes a folder that servers load"
_OTHER_OPTIMIZER = "training.optimizer has other optimizers, with keys of their own"
_PROFILING = "trainings are not profiled; speed and memory are in the run record and in engine report"
_OTHER_PARALLELISM = "models are split by ZeRO stages only: see resources.zero"
_TOKENS = "credentials are read from the environment, such as HF_TOKEN"
_BEAMS = "predictions are greedy or sampled: see evaluation.decoding"
_SUPERVISED = "every training is supervised; the stage of ZeRO is resources.zero.stage"
_COMPLETE_ANSWERS = "rows are tokenized as the chat template writes them: see tokenization.format and tokenization.mask"

WITHOUT_KEY: Mapping[str, str] = {
    **dict.fromkeys(
        ("output_dir", "logging_dir", "overwrite_output_dir", "dataset_prepared_path", "cache_dir", "save_dir", "tokenized_path"), _OUTPUT
    ),
    **dict.fromkeys(
        (
            *("logging_steps", "logging_strategy", "logging_first_step", "log_on_each_node", "logging_nan_inf_filter", "log_level"),
            *("log_level_replica", "disable_tqdm", "include_num_input_tokens_seen", "include_tokens_per_second", "plot_loss", "project"),
            *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "debug", "wandb_entity"),
            *("wandb_watch", "wandb_log_model", "wandb_mode", "wandb_run_id", "hf_mlflow_log_artifacts", "include_tkps"),
            *("include_effective_tokens_per_second", "print_param_status"),
        ),
        _LOGGING,
    ),
    **dict.fromkeys(("resume_from_checkpoint", "auto_resume_from_checkpoints", "ignore_data_skip", "enable_jit_checkpoint"), _RESUME),
    **dict.fromkeys(("restore_callback_states_from_checkpoint",), _RESUME),
    **dict.fromkeys(("save_total_limit", "save_on_each_node", "save_safetensors"), _KEPT),
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
            *("export_dir", "export_hub_model_id", "push_dataset_to_hub", "export_device", "export_legacy_format"),
        ),
        _PUBLISH,
    ),
    **dict.fromkeys(("hf_use_auth_token", "hf_hub_token", "ms_hub_token", "om_hub_token"), _TOKENS),
    **dict.fromkeys(("num_beams", "eval_num_beams", "repetition_penalty", "length_penalty", "generation_num_beams"), _BEAMS),
    **dict.fromkeys(("logprobs_field", "num_labels", "process_reward_model", "precompute_ref_log_probs", "ld_alpha"), _NO_PREFERENCES),
    **dict.fromkeys(("rl", "rl_beta", "rpo_alpha", "trl", "ebft", "center_rewards_coefficient"), _NO_PREFERENCES),
    **dict.fromkeys(("processor_type", "processor_kwargs", "crop_to_patches", "media_dir", "role_boundaries"), _NO_IMAGES),
    **dict.fromkeys(("freeze_mm_modules", "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model"), _NO_IMAGES),
    **dict.fromkeys(("audio_sampling_rate", "use_audio_in_video"), _NO_IMAGES),
    **dict.fromkeys(("vllm", "infer_backend", "use_kv_cache"), _SERVING),
    **dict.fromkeys(("adam_beta3", "adam_epsilon2", "embedding_lr", "embedding_lr_scale", "lr_groups"), _OTHER_OPTIMIZER),
    **dict.fromkeys(("enable_torch_profiler", "profile_modules"), _PROFILING),
    **dict.fromkeys(("eot_tokens", "split_thinking", "template_thinking_key", "skip_special_tokens"), _COMPLETE_ANSWERS),
    **dict.fromkeys(("drop_system_message",), _COMPLETE_ANSWERS),
    "stage": _SUPERVISED,
    **dict.fromkeys(("local_rank", "ddp_backend", "ddp_timeout", "device_map", "use_cpu", "no_cuda", "accelerator_config"), _LAUNCH),
    **dict.fromkeys(
        ("parallelism_config", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"), _LAUNCH
    ),
    **dict.fromkeys(("device", "max_memory", "low_cpu_mem_usage", "master_addr", "master_port"), _LAUNCH),
    **dict.fromkeys(("use_ray", "ray_run_name", "ray_init_kwargs", "resources_per_worker"), _LAUNCH),
    **dict.fromkeys(("dp_replicate_size", "tensor_parallel_size", "context_parallel_size", "sequence_parallel_degree"), _OTHER_PARALLELISM),
    **dict.fromkeys(("heads_k_stride", "ring_attn_func", "fsdp_final_state_dict_type", "qlora_sharded_model_loading"), _OTHER_PARALLELISM),
    **dict.fromkeys(("use_mca", "use_megatron_bridge", "megatron_bridge_args", "use_hyper_parallel"), _OTHER_PARALLELISM),
    **dict.fromkeys(
        (
            *("dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
            *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "remove_unused_columns"),
            *("preprocessing_num_workers", "dataset_num_proc", "dataset_processes", "overwrite_cache", "streaming", "dataset_kwargs"),
            *("pad_token", "pad_to_multiple_of", "dataset_streaming", "shuffle_dataset", "length_column_name"),
            *("buffer_size", "preprocessing_batch_size", "data_shared_file_system", "dataset_keep_in_memory", "download_mode"),
            *("is_preprocess", "skip_prepare_dataset", "preprocess_iterable", "preprocess_shards", "num_dataset_shards_to_save"),
            *("dataset_shard_num", "dataset_shard_idx", "shards", "shards_idx", "skip", "sample_packing_mp_start_method"),
            *("sample_packing_eff_est", "total_supervised_tokens", "pretrain_multipack_buffer_size", "pretrain_multipack_attn"),
            *(
                "streaming_multipack_buffer_size",
                "pretraining_sample_concatenation",
                "disable_shuffling",
                "shuffle_before_merging_datasets",
            ),
            *("ignore_pad_token_for_loss", "input_transform"),
        ),
        _LOADER,
    ),
    **dict.fromkeys(("full_determinism", "deterministic"), _DETERMINISTIC),
    **dict.fromkeys(
        (
            *("label_smoothing_factor", "average_tokens_across_devices", "bf16_full_eval", "fp16_full_eval", "use_cache"),
            *("torch_empty_cache_steps", "prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object"),
            *("eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics", "label_names", "do_train", "sortish_sampler"),
            *("optim_target_modules", "trust_remote_code", "use_fast_tokenizer", "strict", "tokenizer_type"),
            *("model_type", "is_llama_derived_model", "loraplus_lr_ratio", "galore_rank", "resize_vocab"),
            *("eos_token", "activation_offloading", "loss_type", "model_init_kwargs", "special_tokens_map", "lora_on_cpu"),
            *("relora_steps", "lora_task_type", "dataset_batch_size", "ignore_bias_buffers", "gradient_checkpointing_ratio"),
            *("task_type", "auto_mapping", "peft_version", "inference_mode", "exclude_modules", "fan_in_fan_out", "layers_to_transform"),
            *("layers_pattern", "rank_pattern", "alpha_pattern", "megatron_config", "megatron_core", "trainable_token_indices"),
            *("eva_config", "corda_config", "lora_ga_config", "velora_config", "alora_invocation_tokens", "use_qalora"),
            *("qalora_group_size", "monteclora_config", "layer_replication", "runtime_config", "use_bdlora", "arrow_config"),
            *("kasa_config", "ensure_weight_tying", "router_aux_loss_coef", "init_weights", "loraplus_lr_embedding", "create_new_adapter"),
            *("is_falcon_derived_model", "is_mistral_derived_model", "is_qwen_derived_model", "type_of_model", "axolotl_config_path"),
            *("cls_model_config", "overrides_of_model_config", "overrides_of_model_kwargs", "model_quantization_config_kwargs"),
            *("tokenizer_use_fast", "tokenizer_legacy", "tokenizer_save_jinja_files", "tokenizer_use_mistral_common"),
            *("unk_token", "init_special_tokens", "fix_untrained_tokens", "resize_token_embeddings_to_32x", "mean_resizing_embeddings"),
            *("shrink_embeddings", "embeddings_skip_upcast", "reinit_weights", "experimental_skip_move_to_device", "trainer_cls"),
            *("gc_steps", "gc_collect_steps", "gpu_memory_limit", "dynamic_checkpoint", "flex_attn_compile_kwargs", "torchdistx_path"),
            *("chunked_cross_entropy_num_chunks", "tiled_mlp", "tiled_mlp_num_shards", "tiled_mlp_use_original_mlp", "fp32_norms"),
            *("fp32_norm_classes", "lr_div_factor", "scaling_softmax", "scaling_softmax_factor", "scaling_softmax_bias", "qat"),
            *("quantization", "quantize_moe_experts", "quantization_device_map", "experts_implementation", "llama4_linearized_experts"),
            *("use_onebitllms", "bench_split", "generate_samples", "generation_prompt_ratio", "eval_on_each_dataset", "relora"),
            *("peft_autocast_adapter_dtype", "peft_ensure_weight_tying", "peft_layer_replication", "peft_layers_pattern"),
            *("peft_layers_to_transform", "peft_trainable_token_indices", "lora_fan_in_fan_out", "lora_rank_pattern", "lora_alpha_pattern"),
            *("pissa_convert", "module_dropout", "use_llama_pro", "use_dft_loss", "use_asft_loss", "asft_alpha", "use_eaft_loss"),
            *("use_eaft", "eaft_alpha", "eaft_k", "shift_attn", "block_diag_attn", "mixture_of_depths", "moe_aux_loss_coef"),
            *("use_reentrant_gc", "upcast_layernorm", "upcast_lmhead_output", "offload_folder", "use_v1_kernels", "lang", "plugins"),
        ),
        _NONE,
    ),
}
"""Foreign names without an equivalent in a spec, and why."""

PREFIXES: Mapping[str, str] = {
    **dict.fromkeys(("dpo_", "kto_", "orpo_", "simpo_", "cpo_", "ppo_", "pref_", "ref_model", "reward_model"), _NO_PREFERENCES),
    **dict.fromkeys(("image_", "video_"), _NO_IMAGES),
    **dict.fromkeys(("vllm_", "sglang_", "gradio_", "use_kt", "kt_"), _SERVING),
    **dict.fromkeys(("galore_", "qgalore_", "apollo_", "badam_", "dion_", "lisa_"), _OTHER_OPTIMIZER),
    **dict.fromkeys(("comet_", "swanlab_", "trackio_", "otel_"), _LOGGING),
    "profiler_": _PROFILING,
    "export_quantization_": _PUBLISH,
    "hyper_parallel_": _OTHER_PARALLELISM,
    **dict.fromkeys(("fp8", "freeze_", "jagged_", "oft_", "pose_", "use_pose", "relora_"), _NONE),
}
"""Beginnings of further names without an equivalent: whole groups of settings for what specs do not do."""


def foreign_hint(name: str) -> str | None:
    """What to write instead of NAME, a key of another trainer's configuration or command line; None if NAME is unknown."""
    name = name.replace("-", "_").lower()
    if name in FOREIGN:
        key, _, remark = FOREIGN[name].partition(": ")
        return f"in a spec this is {key}" + (f" ({remark})" if remark else "")
    why = WITHOUT_KEY.get(name) or next((why for start, why in PREFIXES.items() if name.startswith(start)), None)
    return f"a spec has no such key: {why}" if why else None


def key_of(name: str) -> str | None:
    """The key of a spec that corresponds to the foreign NAME, without the remark; None if NAME is unknown."""
    return FOREIGN[name].partition(": ")[0] if name in FOREIGN else None
