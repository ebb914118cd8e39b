"""What configurations of all tools have in common: models, optimizers, schedules, precisions, devices, files of rows."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.importing.documents import Document
from engine.importing.reading import Draft, Reading
from engine.spec.hub_names import HUB_ID

UNPINNED = "main"
"""What stands for the commit that a file does not name; `engine pin` replaces it."""


@dataclass(frozen=True)
class Request:
    """What the user asks of an import, besides the file."""

    root: Path
    """The workspace."""
    documents: tuple[Document, ...]
    """Every file that was given; the first is the configuration."""
    devices: int
    nearest: bool
    name: str | None = None
    """The experiment's name; None: after the file."""

    @property
    def document(self) -> Document:
        return self.documents[0]

    def found(self, path: str) -> Path | None:
        """The file or folder PATH of the configuration: relative to the workspace, or to its folder or one above; None if it is nowhere."""
        given = Path(path).expanduser()
        if given.is_absolute():
            return given if given.exists() else None
        folder = self.document.path.resolve().parent
        return next((above / given for above in (self.root, folder, *folder.parents) if (above / given).exists()), None)

    def shown(self, path: Path) -> str:
        """PATH in a spec: relative to the workspace if it is inside."""
        full = path.resolve()
        return full.relative_to(self.root.resolve()).as_posix() if full.is_relative_to(self.root.resolve()) else full.as_posix()


def slug(text: str) -> str:
    """TEXT as a name of a spec: lower-case letters, digits and hyphens."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())[:50].strip("-") or "imported"


def put_name(reading: Reading, request: Request) -> None:
    """The experiment's name: the file's."""
    reading.draft.set("experiment.name", request.name or slug(request.document.path.stem), ["the file's name"])


def put_model(reading: Reading, request: Request, key: str, revision: str, path: str = "model") -> None:
    """The model that KEY names: a folder, or a hub id with the commit under the key REVISION."""
    given = str(reading.get(key))
    local = request.found(given)
    if local is None and not given.startswith((".", "/", "~")) and re.fullmatch(HUB_ID, given):
        commit = reading.get(revision)
        reading.put(f"{path}.id", given, key)
        pinned = isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit)
        why = "" if pinned else "a branch or tag may move; `engine pin` writes the commit that it names now"
        reading.put(f"{path}.revision", str(commit or UNPINNED), revision, why=why, differs=not pinned)
        return
    if given.endswith(".gguf"):
        reading.put(f"{path}.gguf", request.shown(local or Path(given)), key)
    else:
        reading.put(f"{path}.path", request.shown(local) if local else given, key)
    if reading.given(revision):
        reading.none(revision, why="the model is a local folder")
    else:
        reading.same(revision, why="the model is a local folder")


def put_seed(reading: Reading, key: str, default: int) -> None:
    reading.put("experiment.seed", reading.integer(key, default), key)


_OPTIMIZERS: Mapping[str, str] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw_torch_xla"), "adamw"),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "adamw_torch_8bit", "ao_adamw_8bit"), "adamw_8bit"),
    **dict.fromkeys(("paged_adamw_8bit",), "adamw_8bit paged"),
    **dict.fromkeys(("paged_adamw", "paged_adamw_32bit"), "paged_adamw"),
    "adafactor": "adafactor",
}


def put_optimizer(reading: Reading, key: str, default: str) -> None:
    """The optimizer that transformers or axolotl calls by the value of KEY."""
    name = str(reading.get(key, default))
    ours = _OPTIMIZERS.get(name)
    if ours is None:
        near = "adamw_8bit" if "8bit" in name or "4bit" in name else "adamw"
        reading.refuse(key, f"the optimizer {name}", f'training.optimizer = "{near}"', nearest=True)
        reading.draft.set("training.optimizer.kind", near, [f"nearest to {key}: {name}"])
        return
    kind, _, paged = ours.partition(" ")
    why = "torch's Adafactor scales the learning rate by the size of each weight" if kind == "adafactor" else ""
    reading.put("training.optimizer.kind", kind, key, why=why, differs=bool(why))
    if paged:
        reading.put("training.optimizer.paged", True, key)


def put_adam(reading: Reading, beta1: str, beta2: str, epsilon: str) -> None:
    """AdamW's decay rates and epsilon."""
    has_betas = reading.draft.value("training.optimizer.kind") != "adafactor"
    betas = (reading.number(beta1, 0.9), reading.number(beta2, 0.999))
    if has_betas:
        reading.put("training.betas", tuple(map(float, (b or 0.0 for b in betas))), beta1, beta2)
        reading.put("training.optimizer.eps", float(reading.number(epsilon, 1e-8) or 1e-8), epsilon)
    else:
        reading.none(beta1, beta2, epsilon, why="adafactor has no betas")


_SCHEDULES: Mapping[str, str] = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "inverse_sqrt": "inverse_sqrt",
    "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "wsd",
}


def put_schedule(reading: Reading, key: str, default: str, options: str, floor: str | None = None) -> str:
    """The schedule that KEY names, with the floor under FLOOR or in OPTIONS; returns its name."""
    name = str(reading.get(key, default))
    given = reading.get(options) or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = {}
    if not isinstance(given, dict):
        reading.wrong(options, "a mapping")
        given = {}
    kind = _SCHEDULES.get(name)
    if kind is None:
        reading.refuse(key, f"the schedule {name}", 'training.schedule = "cosine"', nearest=True)
        reading.draft.set("training.schedule.kind", "cosine", [f"nearest to {key}: {name}"])
    else:
        reading.put("training.schedule.kind", kind, key)
    rest = dict(given)
    least = rest.pop("min_lr_rate", None)
    if least is None and "min_lr" in rest and (rate := reading.draft.value("training.learning_rate")):
        least = float(rest.pop("min_lr")) / rate
    if least is not None:
        reading.put("training.schedule.floor", float(least), options)
    if rest and reading.given(options):
        reading.refuse(options, f"options of the schedule: {', '.join(rest)}", "leave them out", nearest=True)
    elif not reading.given(options) or least is None:
        reading.same(options, why="no options")
    if floor is not None:
        if reading.given(floor):
            reading.put("training.schedule.floor", reading.number(floor), floor)
        else:
            reading.same(floor, why="the schedule ends at 0")
    return name


def put_warmup(reading: Reading, steps: str, ratio: str, default: float, name: str) -> None:
    """The warm-up of the schedule NAME, under the keys STEPS (a number, or in transformers 5 also a share) and RATIO."""
    number, share = reading.number(steps), reading.number(ratio)
    if number and share:
        reading.conflict(steps, ratio, hint="keep one of them")
    if number is not None and 0 < number < 1:
        reading.put("training.schedule.warmup_ratio", number, steps)
        reading.same(ratio, why=f"{steps} is a share") if not share else None
    elif number:
        total = reading.draft.value("training.steps")
        if total:
            reading.put("training.schedule.warmup_ratio", round(min(1.0, number / total), 6), steps)
        else:
            why = f"{number:g} steps of a number that is not known yet: once `engine plan` shows it, set {number:g} divided by it"
            reading.put("training.schedule.warmup_ratio", 0.03, steps, why=why, differs=True)
        reading.same(ratio, why=f"{steps} is set")
    elif name == "constant":
        reading.put("training.schedule.warmup_ratio", 0.0, ratio, why="the schedule constant has no warm-up in transformers")
        reading.same(steps, why="no warm-up")
    else:
        reading.put(
            "training.schedule.warmup_ratio", 0.0 if number == 0 and share is None else share if share is not None else default, ratio
        )
        reading.same(steps, why="a share is set" if share is not None else "no number of steps is set")


def put_epochs(reading: Reading, epochs: str, steps: str, default: float) -> None:
    """The length of the training: STEPS, if positive, comes before EPOCHS, as in transformers."""
    number = reading.integer(steps)
    if number and number > 0:
        reading.put("training.steps", number, steps)
        if reading.given(epochs):
            reading.none(epochs, why=f"{steps} decides the length")
        else:
            reading.same(epochs, why=f"{steps} decides the length")
        return
    reading.same(steps, why="the number of epochs decides the length")
    value = reading.number(epochs, default) or default
    if value == int(value) and value > 0:
        reading.put("training.epochs", int(value), epochs)
    else:
        near = max(1, round(value))
        reading.refuse(epochs, f"{value:g} epochs", f"training.epochs = {near}, or mixture.total_rows", nearest=True)
        reading.draft.set("training.epochs", near, [f"nearest to {epochs}: {value:g}"])


def put_batch(reading: Reading, request: Request, micro: str, accumulation: str, defaults: tuple[int, int]) -> None:
    """The global batch: rows per device, times accumulation steps, times devices."""
    rows, steps = reading.integer(micro, defaults[0]) or 1, reading.integer(accumulation, defaults[1]) or 1
    devices = request.devices
    times = f" × {devices} devices" if devices > 1 else ", on one device (--devices says otherwise)"
    reading.put("training.global_batch.rows", rows * steps * devices, micro, accumulation, why=f"{rows} × {steps}{times}")
    reading.put("resources.micro_batch", rows, micro)
    if devices > 1:
        reading.draft.set("resources.devices", devices, ["--devices"])


def put_precision(reading: Reading, bf16: bool | str, fp16: bool, tf32: bool, keys: Sequence[str]) -> None:
    """The precision that the flags ask for; KEYS: all keys that say something on it."""
    if bf16 and bf16 != "auto" and fp16:
        one, other = ([key for key in keys if kind in key and reading.get(key)] for kind in ("bf", "p16"))
        other = other or [key for key in keys if key == "float16"]
        reading.conflict(one[0], other[0], hint="keep one of them")
    value = "float16" if fp16 else "bfloat16" if bf16 else "tf32" if tf32 else "float32"
    why = "on hardware without bfloat16 the tool would choose float16" if value == "bfloat16" and bf16 == "auto" else ""
    reading.put("training.precision", value, *keys, why=why, differs=bool(why))


_ATTENTION: Mapping[str, str] = {
    "eager": "eager",
    "sdpa": "sdpa",
    "disabled": "eager",
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
    "flash_attention_2": "flash_attention_2",
    "flash_attention_3": "flash_attention_3",
    "flex_attention": "flex",
    "flex": "flex",
}


def put_attention(reading: Reading, key: str, name: str | None) -> None:
    """The implementation of attention that the tool calls NAME."""
    if name is None or name == "auto":
        reading.same(key, why="the fastest that is available")
    elif name in _ATTENTION:
        reading.put("resources.attention", _ATTENTION[name], key)
    else:
        reading.none(key, why=f"{name} is another implementation of the same attention; the fastest of ours is chosen")


def put_zero(reading: Reading, request: Request, key: str) -> None:
    """ZeRO's stage and offloading, from the DeepSpeed file that KEY names, or the table that it is."""
    value = reading.get(key)
    if value is None:
        reading.same(key, why="no ZeRO")
        return
    table: Any = value
    if isinstance(value, str):
        path = request.found(value)
        if path is None:
            stage = re.search(r"(?:z|zero|zero_stage_?)([0-3])", Path(value).name)
            if stage is None:
                reading.none(key, why=f"{value} is not here; set resources.zero to its stage")
                return
            offloads = "offload" in value and stage[1] == "3"
            reading.put("resources.zero.stage", int(stage[1]), key, why=f"{value} is not here: the stage is that of its name", differs=True)
            if offloads and "params" not in value:
                reading.put("resources.zero.offload_optimizer", "cpu", key)
            if offloads:
                reading.put("resources.zero.offload_parameters", "cpu", key)
            return
        try:
            table = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            reading.refuse(key, f"{value}, which is not valid JSON ({error})", "mend the file, or set resources.zero")
            return
    zero = table.get("zero_optimization", {}) if isinstance(table, dict) else {}
    if not zero.get("stage"):
        reading.same(key, why="its stage is 0")
        return
    reading.put("resources.zero.stage", int(zero["stage"]), key)
    for theirs, ours in (("offload_optimizer", "offload_optimizer"), ("offload_param", "offload_parameters")):
        device = (zero.get(theirs) or {}).get("device", "none")
        if device in ("cpu", "nvme"):
            reading.put(f"resources.zero.{ours}", device, key)


def put_target_modules(reading: Reading, key: str, everything: bool, names: Iterable[str]) -> None:
    """The layers with an update."""
    found = tuple(names)
    if everything and not found:
        reading.put("training.method.target_modules", "all-linear", key)
    elif found:
        reading.put("training.method.target_modules", found, key)


def put_compute_dtype(draft: Draft) -> None:
    """The precision in which quantised layers compute: that of the training."""
    computed = draft.value("training.precision")
    value = computed if computed in ("bfloat16", "float16") else "float32"
    draft.set("training.method.compute_dtype", value, ["the precision of the training"])


def put_fsdp(reading: Reading) -> None:
    """FSDP under `fsdp` and `fsdp_config`, which shards what ZeRO partitions."""
    given, table = reading.get("fsdp"), reading.get("fsdp_config")
    words = "full_shard" if given is True else "" if isinstance(given, bool) else " ".join(reading.names("fsdp"))
    if not words and not table:
        reading.same("fsdp", "fsdp_config", why="no sharding")
        return
    key = "fsdp" if words else "fsdp_config"
    if reading.given("deepspeed"):
        reading.conflict("deepspeed", "fsdp_config" if table else "fsdp", hint="keep one of them")
    why = "FSDP shards what this ZeRO stage partitions; no result changes"
    reading.put("resources.zero.stage", 2 if "shard_grad_op" in words else 3, key, why=why)
    reading.taken("fsdp", "fsdp_config", ours="resources.zero")
    table = table if isinstance(table, dict) else {}
    if "offload" in words or table.get("offload_params") or table.get("fsdp_offload_params"):
        reading.put("resources.zero.offload_parameters", "cpu", key)
    if table.get("activation_checkpointing") or table.get("fsdp_activation_checkpointing"):
        reading.put("resources.gradient_checkpointing", True, "fsdp_config")


def put_validation_rows(reading: Reading, key: str, tasks: Iterable[str], tool: str) -> None:
    """Rows that are held out for the validation: a share of them, or a number, under KEY."""
    size = reading.number(key, 0.0) or 0.0
    for task in tasks:
        split = ("tasks", task, "split")
        if size >= 1:
            why = f"at most {int(size)} rows of each task, about 5 in 100; {tool} takes {int(size)} of all rows together"
            reading.put((*split, "max_validation"), int(size), key, why=why, differs=True)
        else:
            why = "which rows are held out follows from their content here, and from a random order there" if size else ""
            reading.put((*split, "validation"), float(size), key, why=why, differs=bool(size))


def put_unseen_rows(draft: Draft, tasks: Iterable[str]) -> None:
    """Rows for the evaluation, which reads rows that were not trained on: the validation rows, or a few that are held out."""
    for task in tasks:
        split = ("tasks", task, "split")
        if any(path[:4] == (*split, "test_source") for path in draft.settings):
            continue
        if draft.value((*split, "validation")) or draft.value((*split, "max_validation")):
            draft.set((*split, "test"), 0.0, ["there is no test set"])
            draft.set("evaluation.split", "validation", ["there is no test set"])
        else:
            why = "the tool trains on every row; a few are held out here, since the evaluation reads rows that were not trained on"
            draft.set((*split, "test"), 0.05, ["there is no test set"], why)


_BEGINNING = 200
"""Characters of a text that are asked to be continued."""


def put_text_evaluation(draft: Draft, texts: Iterable[str], tasks: Iterable[str]) -> None:
    """What is evaluated if some TASKS are TEXTS, which ask nothing: their loss, and if there are no others, how they are continued."""
    names = [*texts]
    if not names:
        return
    others = [task for task in tasks if task not in names]
    draft.set("evaluation.held_out", tuple(names), ["texts ask nothing: their loss is measured"])
    if not others:
        name = names[0]
        task = ("tasks", f"{name}-continued"[:60])
        for path, setting in [*draft.settings.items()]:
            if path[:2] == ("tasks", name) and path[2] in ("source", "split"):
                draft.settings[(*task, *path[2:])] = setting
        told = [f"the evaluation asks for the rest of a text after its first {_BEGINNING} characters"]
        draft.set((*task, "source", "where"), f"text | length > {_BEGINNING}", told)
        draft.set((*task, "source", "columns", "rest"), f"text[{_BEGINNING}:]", told)
        draft.set((*task, "prompts"), (f"{{{{ text[:{_BEGINNING}] }}}}",), told)
        draft.set((*task, "teacher"), {"kind": "gold", "column": "rest"}, told)
        for each in (name, task[1]):
            draft.set(("tasks", each, "split", "group_by"), "text", ["a text and its beginning are in one split"])
        others = [task[1]]
    draft.set("evaluation.tasks", tuple(others), ["tasks that ask something"])


def settle(draft: Draft) -> None:
    """Take back settings that a spec does not allow together, each with a note in the account."""
    kind = draft.value("training.optimizer.kind")
    stage = draft.value("resources.zero.stage")
    if stage and (kind not in (None, "adamw") or draft.value("training.precision") == "float16"):
        cause = f"optimizer {kind}" if kind not in (None, "adamw") else "float16"
        for path in [path for path in draft.settings if path[:2] == ("resources", "zero")]:
            draft.drop(path)
        for name, entry in draft.entries.items():
            if any(ours.startswith("resources.zero") for ours in entry.ours):
                why = f"ZeRO does not go with {cause} here; it is a resource, which changes no result"
                draft.entries[name] = type(entry)(name, "no meaning here", entry.given, entry.where, (), why)
