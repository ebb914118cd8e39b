"""transformers' training arguments, which LLaMA-Factory and TRL take: what each means in a spec.

Facts are those of `Seq2SeqTrainingArguments` of transformers 5.23, and of transformers 4 for names that version 5 has no more.
"""

from collections.abc import Mapping

from engine.importing import common, reasons
from engine.importing.common import Request
from engine.importing.reading import Reading, Refusal

WITHOUT_MEANING: Mapping[str, str] = {
    **dict.fromkeys(("output_dir", "overwrite_output_dir", "logging_dir", "run_name", "do_train", "do_eval", "do_predict"), reasons.OUTPUT),
    **dict.fromkeys(
        (
            *("logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "logging_nan_inf_filter", "log_level"),
            *("include_num_input_tokens_seen", "include_tokens_per_second", "log_level_replica", "disable_tqdm", "project", "debug"),
            *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics", "tpu_metrics_debug"),
        ),
        reasons.LOGGING,
    ),
    **dict.fromkeys(
        (
            *("use_cpu", "no_cuda", "use_mps_device", "accelerator_config", "parallelism_config", "local_rank", "ddp_backend"),
            *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_timeout"),
            *("tpu_num_cores", "mp_parameters", "ray_scope", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap"),
        ),
        reasons.LAUNCH,
    ),
    **dict.fromkeys(
        (
            *("dataloader_drop_last", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
            *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order", "remove_unused_columns"),
            *("length_column_name", "label_names", "sortish_sampler", "auto_find_batch_size", "split_batches", "dispatch_batches"),
            *("past_index",),
        ),
        reasons.LOADER,
    ),
    **dict.fromkeys(
        (
            *("save_only_model", "save_strategy", "save_on_each_node", "save_total_limit", "save_safetensors", "enable_jit_checkpoint"),
            *("resume_from_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint"),
        ),
        reasons.KEPT,
    ),
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
            *("push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"),
        ),
        reasons.PUBLISH,
    ),
    **dict.fromkeys(
        (
            *("torch_compile_backend", "torch_compile_mode", "liger_kernel_config", "use_cache", "torch_empty_cache_steps"),
            *("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "jit_mode_eval", "use_ipex", "fp16_opt_level"),
            *("half_precision_backend", "fp16_backend", "torchdynamo", "average_tokens_across_devices"),
        ),
        reasons.SPEED,
    ),
    **dict.fromkeys(
        (
            *("bf16_full_eval", "fp16_full_eval", "eval_delay", "prediction_loss_only", "eval_on_start", "eval_do_concat_batches"),
            *("eval_use_gather_object", "eval_accumulation_steps", "include_for_metrics", "include_inputs_for_metrics"),
            *("batch_eval_metrics", "use_legacy_prediction_loop", "metric_for_best_model", "greater_is_better"),
        ),
        reasons.EVALUATION,
    ),
    **dict.fromkeys(("predict_with_generate", "generation_max_length", "generation_num_beams", "generation_config"), reasons.SAMPLES),
    "full_determinism": "a training is deterministic (resources.numerics)",
    "optim_target_modules": "of optimizers that are refused",
    "data_seed": "experiment.seed is the seed of everything",
}
"""Keys that have no meaning in a spec, and why."""

REFUSED: Mapping[str, Refusal] = {
    "label_smoothing_factor": Refusal("smoothed labels", "leave it out", off=(0, 0.0), nearest=True),
    "optim_args": Refusal("arguments of the optimizer", "the keys of training.optimizer", nearest=True),
}
"""Keys that ask for what a spec cannot say."""

HANDLED = frozenset(
    (
        *("per_device_train_batch_size", "per_gpu_train_batch_size", "per_device_eval_batch_size", "per_gpu_eval_batch_size"),
        *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"),
        *("optim", "adafactor", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "neftune_noise_alpha"),
        *("bf16", "fp16", "tf32", "eval_strategy", "evaluation_strategy", "eval_steps", "load_best_model_at_end", "save_steps"),
        *("gradient_checkpointing", "activation_checkpointing", "torch_compile", "use_liger_kernel", "deepspeed", "fsdp", "fsdp_config"),
        *("report_to", "seed", "group_by_length", "train_sampling_strategy", "num_train_epochs", "max_steps"),
    )
)
"""Keys that are read one by one; the last two by the caller, before the others."""


def put_arguments(reading: Reading, request: Request, rate: float = 5e-5, bf16: bool = False, checkpointing: bool = False) -> None:
    """Settings of the training; RATE, BF16 and CHECKPOINTING are the tool's defaults."""
    t = "training"
    reading.put(f"{t}.learning_rate", float(reading.number("learning_rate", rate) or rate), "learning_rate")
    micro = reading.one_of("per_device_train_batch_size", "per_gpu_train_batch_size") or "per_device_train_batch_size"
    common.put_batch(reading, request, micro, "gradient_accumulation_steps", (8, 1))
    for key in ("per_device_train_batch_size", "per_gpu_train_batch_size"):
        reading.same(key, why=f"{micro} says it")
    schedule = common.put_schedule(reading, "lr_scheduler_type", "linear", "lr_scheduler_kwargs")
    common.put_warmup(reading, "warmup_steps", "warmup_ratio", 0.0, schedule)
    common.put_optimizer(reading, "optim", "adamw_torch_fused")
    if reading.flag("adafactor"):
        reading.put(f"{t}.optimizer.kind", "adafactor", "adafactor")
    else:
        reading.same("adafactor", why="off")
    common.put_adam(reading, "adam_beta1", "adam_beta2", "adam_epsilon")
    reading.put(f"{t}.weight_decay", float(reading.number("weight_decay", 0.0) or 0.0), "weight_decay")
    reading.put(f"{t}.max_grad_norm", float(reading.number("max_grad_norm", 1.0) or 1.0), "max_grad_norm")
    if reading.given("neftune_noise_alpha"):
        reading.put(f"{t}.neftune_noise_alpha", float(reading.number("neftune_noise_alpha") or 0), "neftune_noise_alpha")
    else:
        reading.same("neftune_noise_alpha", why="no noise")
    half = reading.flag("fp16")
    wide = reading.flag("bf16", bf16 and not half)
    common.put_precision(reading, wide, half, reading.flag("tf32"), ("bf16", "fp16", "tf32"))
    _put_validation(reading)
    batch = reading.one_of("per_device_eval_batch_size", "per_gpu_eval_batch_size")
    if batch:
        reading.put("resources.evaluation_batch", reading.integer(batch), batch)
    reading.same("per_device_eval_batch_size", "per_gpu_eval_batch_size", why="not set")
    flag = reading.one_of("gradient_checkpointing", "activation_checkpointing")
    reading.put("resources.gradient_checkpointing", reading.flag(flag) if flag else checkpointing, flag or "gradient_checkpointing")
    reading.same("gradient_checkpointing", "activation_checkpointing", why="not set")
    reading.put("resources.torch_compile", reading.flag("torch_compile"), "torch_compile")
    if reading.flag("use_liger_kernel"):
        reading.put("resources.kernels", "liger", "use_liger_kernel")
    else:
        reading.same("use_liger_kernel", why="off")
    saves = reading.number("save_steps")
    if saves and saves >= 1:
        reading.put("resources.checkpoints.every_steps", int(saves), "save_steps")
    else:
        reading.same("save_steps", why="a checkpoint every ten minutes")
    loggers = tuple(name for name in reading.names("report_to") if name in ("tensorboard", "wandb", "mlflow"))
    if reading.names("report_to") == ("all",):
        loggers = ("tensorboard", "wandb", "mlflow")
    reading.put("resources.report_to", loggers, "report_to")
    common.put_zero(reading, request, "deepspeed")
    common.put_fsdp(reading)
    common.put_seed(reading, "seed", 42)
    sampling = str(reading.get("train_sampling_strategy", "random"))
    if sampling == "sequential":
        reading.refuse("train_sampling_strategy", "rows in the order of the files", "a mixture is shuffled", nearest=True)
    else:
        reading.same("train_sampling_strategy", why="a mixture is shuffled, and rows of a batch are grouped by length")
    reading.same("group_by_length", why="rows of a batch are grouped by length")


def _put_validation(reading: Reading) -> None:
    strategy = reading.one_of("eval_strategy", "evaluation_strategy")
    said = str(reading.get(strategy)) if strategy else "no"
    every = reading.number("eval_steps")
    keys = ("eval_strategy", "evaluation_strategy", "eval_steps")
    if said == "steps" and every and every >= 1:
        reading.put("training.validation.every_steps", int(every), "eval_steps")
        reading.taken(*(key for key in keys if reading.given(key)), ours="training.validation")
    elif said in ("steps", "epoch"):
        why = "a number of steps that is not known yet: validations are every 100 steps"
        reading.put("training.validation.every_steps", 100, strategy or "eval_strategy", why=why, differs=True)
    for key in keys:
        reading.same(key, why="one validation at the end")
    if reading.draft.value("training.validation.every_steps") is not None:
        reading.put("training.validation.keep_best", reading.flag("load_best_model_at_end"), "load_best_model_at_end")
    else:
        reading.same("load_best_model_at_end", why="the last weights are kept")
