"""Training on pairs of answers and on judged answers: what the tools' settings of DPO, KTO, ORPO and SimPO mean in a spec.

All three tools compute the losses as TRL does (trl/trainer/dpo_trainer.py and kto_trainer.py, trl/experimental/orpo and cpo), with other
names for their keys.
"""

from collections.abc import Mapping, Sequence

from engine.importing.reading import Reading

_LOSSES = ("sigmoid", "hinge", "ipo", "robust")
"""Losses of DPO that a spec has, under the names of TRL."""
_OBJECTIVE = "training.objective"
SMOOTHED_BY_TRL = ("robust",)
"""Losses of DPO whose labels TRL smooths: since version 1.0.0 (trl/trainer/dpo_trainer.py) not those of sigmoid. axolotl, which requires
TRL 1.8.0, hands the share on to it; LLaMA-Factory requires 0.24.0 at most, which smooths sigmoid."""


def put_dpo(
    reading: Reading, losses: Sequence[str], loss: str, beta: str, smoothing: str, smoothed: Sequence[str] = ("sigmoid", "robust")
) -> None:
    """The objective dpo with LOSSES, which the key LOSS names.

    BETA and SMOOTHING: the keys of its strength and of its label smoothing; SMOOTHED: the losses to which the tool applies this.
    """
    name = ", ".join(losses)
    reading.draft.set(f"{_OBJECTIVE}.kind", "dpo", [loss])
    share = float(reading.number(smoothing, 0.0) or 0.0)
    if name == "robust" and not share:
        reading.put(f"{_OBJECTIVE}.loss", "sigmoid", loss, why="which robust is without exchanged labels")
    elif name not in _LOSSES:
        reading.refuse(loss, f"the loss {name} of pairs", f"{', '.join(_LOSSES)}")
    else:
        reading.put(f"{_OBJECTIVE}.loss", name, loss)
    put_strength(reading, "beta", beta, 0.1)
    if share and name not in smoothed:
        reading.none(smoothing, why=f"of the loss{'es' * (len(smoothed) > 1)} {' and '.join(smoothed)}")
    else:
        reading.put(f"{_OBJECTIVE}.label_smoothing", share, smoothing)


def put_kto(reading: Reading, beta: str, desirable: str, undesirable: str) -> None:
    """The fields of the objective kto; BETA, DESIRABLE and UNDESIRABLE: the keys of its strength and of both weights."""
    for ours, key, default in (("beta", beta, 0.1), ("desirable_weight", desirable, 1.0), ("undesirable_weight", undesirable, 1.0)):
        put_strength(reading, ours, key, default)


def put_strength(reading: Reading, ours: str, key: str, default: float) -> None:
    """The field OURS of the objective, a number above 0 under KEY."""
    value = float(reading.number(key, default) or 0.0)
    if value <= 0:
        reading.wrong(key, "above 0")
        value = default
    reading.put(f"{_OBJECTIVE}.{ours}", value, key)


def put_pairs(reading: Reading, task: tuple[str, str], columns: Mapping[str, str], keys: Sequence[str], layout: str = "preference") -> None:
    """The LAYOUT of the rows of TASK; COLUMNS: how the layout's columns follow from those of the rows, as KEYS say."""
    reading.draft.set((*task, "layout", "kind"), layout, keys)
    for name, value in columns.items():
        if value != name:
            reading.draft.set((*task, "source", "columns", name), value, keys)


def settle_pairs(reading: Reading, tool: str, truncation: str, why: str, dropout: bool = False) -> None:
    """What holds for every training on pairs: its mask, its lengths and its dropout.

    TRUNCATION: the key that sets what becomes of long pairs; WHY: how this differs from leaving them out, empty if it does not; DROPOUT:
    whether TOOL keeps the dropout that the configuration sets.
    """
    draft = reading.draft
    draft.set("tokenization.mask.kind", "completion", ["only answers are learned"])
    reading.put("tokenization.over_length", "drop", truncation, why=why, differs=bool(why))
    if draft.value("training.method.lora_dropout") and not dropout:
        off = f"{tool} switches dropout off while it trains on preferences"
        reading.put("training.method.lora_dropout", 0.0, "lora_dropout", why=off)
    if draft.value("model.adapter") and draft.value(f"{_OBJECTIVE}.kind") in ("dpo", "kto"):
        draft.set(
            "model.adapter",
            draft.value("model.adapter"),
            draft.settings[("model", "adapter")].sources,
            f"{tool} compares with the base without this adapter; here the reference is the model that the training starts from",
        )
