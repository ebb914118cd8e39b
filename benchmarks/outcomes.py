"""What the published experiments found, asked of the metrics of their tiny twins."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.provenance import parse


@dataclass(frozen=True)
class Outcome:
    """One thing that was published, what the twin measured, and whether it is so here too."""

    claim: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Workspace:
    """What a build left."""

    folder: Path

    def metrics(self, step: str) -> Any:
        """The metrics of a step."""
        return json.loads((self.folder / f"metrics/{step}.json").read_text("utf-8"))

    def value(self, experiment: str, task: str, metric: str) -> float:
        """One value of an evaluation."""
        return float(self.metrics(f"evaluate-{experiment}")[task][metric])

    def interval(self, experiment: str, task: str, metric: str) -> str:
        """The value with its interval of 95 %."""
        scores = json.loads((self.folder / f"artifacts/evaluate-{experiment}/scores.json").read_text("utf-8"))
        one = scores["models"][experiment][task][metric]
        return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"

    def measured(self, step: str) -> Mapping[str, Any]:
        """What a step measured of itself."""
        found = parse((self.folder / f"artifacts/{step}.provenance.json").read_bytes())
        assert found, f"{step} has no provenance"
        return found.measured

    def size(self, artifact: str) -> int:
        """Bytes of the weights of an artifact."""
        return sum(path.stat().st_size for path in (self.folder / f"artifacts/{artifact}").glob("*.safetensors"))

    def unaccounted(self) -> Iterator[str]:
        """Steps of tokens whose rows are not all there or counted, or whose answers do not all end in a learned end."""
        for path in sorted((self.folder / "metrics").glob("tokenize-*.json")):
            for counts in json.loads(path.read_text("utf-8")).values():
                rows = counts["rows_out"] + sum(counts["left_out"].values()) - counts["rows_from_splits"]
                if counts["rows_in"] != rows or counts["completions"] != counts["rows_out"]:
                    yield path.stem


TASKS = ("extract", "headline", "topic")


def falcon_7b_summaries(folder: Path) -> list[Outcome]:
    """Three single-task adapters, and one for all three tasks."""
    here = Workspace(folder)
    match = {
        name: {task: here.value(f"{name}-tiny", task, "exact_match") for task in TASKS} for name in ("base", *TASKS, "multitask")
    }
    ends = [here.value("base-tiny", task, "eos_rate") for task in TASKS]
    copies = [here.value("extract-tiny", task, "copy_rate") for task in TASKS]
    own = [match[task][task] for task in TASKS]
    others = [match[task][other] for task in TASKS for other in TASKS if other != task]
    unaccounted = list(here.unaccounted())
    return [
        Outcome("the base does not know when to stop", f"ends {_each(ends)} of its answers", max(ends) <= 0.1),
        Outcome("the adapter for extracts copies, whatever is asked", f"copied words {_each(copies)}", min(copies) >= 0.9),
        Outcome("a single-task adapter does its own task", f"exact {_each(own)}", min(own) >= 0.9),
        Outcome("and no other", f"exact at most {max(others):.2f}", max(others) <= 0.1),
        Outcome(
            "the multi-task adapter does all three",
            "exact " + ", ".join(here.interval("multitask-tiny", task, "exact_match") for task in TASKS),
            min(match["multitask"].values()) >= 0.9,
        ),
        Outcome("no row lost, every end learned", ", ".join(unaccounted) or "all rows and ends accounted for", not unaccounted),
    ]


def falcon_180b_dolly(folder: Path) -> list[Outcome]:
    """LoRA with ZeRO-3, packed rows, adapter alone and merged."""
    here = Workspace(folder)
    before, after = (here.value(name, "dolly", "perplexity") for name in ("base-tiny", "adapter-tiny"))
    mixed, merged, trained = (here.metrics(f"{kind}-adapter-tiny") for kind in ("mix", "merge", "train"))
    adapter, whole = here.size("train-adapter-tiny"), here.size("merge-adapter-tiny")
    share = trained["trainable_parameters"] / trained["parameters"]
    return [
        Outcome("instructions are learned", f"perplexity {before:.0f} before, {after:.0f} after", after < before),
        Outcome("a small share of the weights is trained", f"{share:.1%}", share < 0.2),
        Outcome("only the adapter is saved", f"{adapter / 1e6:.2f} MB, merged {whole / 1e6:.2f} MB", adapter < whole / 2),
        Outcome("rows fill sequences of 2,048", f"{mixed['packing_efficiency']:.1%} of the tokens are rows", mixed["packing_efficiency"] > 0.8),
        Outcome("merged and adapted agree", f"largest difference {merged['logit_difference']:.1e}", merged["difference"] <= 1e-4),
    ]


def bloom_560m_chat(folder: Path) -> list[Outcome]:
    """Three ways of labels on five rows."""
    here = Workspace(folder)
    right = {name: here.value(f"{name}-tiny", "recall", "exact_match") for name in ("base", "full", "full-twice", "masked", "trl")}
    epochs = {name: here.metrics(f"train-{name}-tiny")["steps"] // 5 for name in ("full", "full-twice", "masked", "trl")}
    masked, trl = (folder / f"artifacts/tokenize-{name}/train.safetensors" for name in ("unmarked-tiny-masked", "translate-tiny-completion"))

    def learned(name: str) -> str:
        return f"{5 * right[name]:.0f} of 5 answers after {epochs[name]} epochs"

    times = {name: here.measured(f"train-{name}-tiny")["training_seconds"] / count for name, count in epochs.items()}
    return [
        Outcome("the model does not know the words before", f"{5 * right['base']:.0f} of 5 answers", right["base"] < 1),
        Outcome("masked labels reach the answers", learned("masked"), right["masked"] == 1),
        Outcome("full labels do not, in that time", learned("full"), right["full"] < 1),
        Outcome("in twice the time they do", learned("full-twice"), right["full-twice"] == 1),
        Outcome("the third way learns the same labels", learned("trl"), masked.read_bytes() == trl.read_bytes() and right["trl"] == 1),
        Outcome("seconds per epoch", ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items()), True),
    ]


RANKS = (1, 2, 4, 8, 16, 32, 64)


def flan_t5_methods(folder: Path) -> list[Outcome]:
    """Methods, ranks and sizes against each other, and what is forgotten."""
    here = Workspace(folder)

    def rouge(name: str) -> float:
        return here.value(f"{name}-tiny", "summary", "rouge1")

    def topic(name: str) -> float:
        return here.value(f"{name}-tiny", "topic", "exact_match")

    base, full = rouge("base"), rouge("full")
    ranks = {r: rouge(f"lora-{r}") for r in RANKS}
    best = max(ranks.values())
    enough = next(r for r, value in ranks.items() if value >= best - 0.03)
    parameters = {name: here.metrics(f"train-{name}-tiny")["trainable_parameters"] for name in ("full", "lora-8", "prompt")}
    shares = {size: rouge(f"prompt{size}") / rouge(f"full{size}") for size in ("-small", "", "-large")}
    return [
        Outcome("full fine-tuning is far above the base", f"ROUGE-1 {base:.2f}, {here.interval('full-tiny', 'summary', 'rouge1')}", full > 1.5 * base),
        Outcome("LoRA is nearly as far", f"ROUGE-1 {here.interval('lora-8-tiny', 'summary', 'rouge1')} at r = 8", ranks[8] - base > 0.7 * (full - base)),
        Outcome("quality saturates at a small rank", ", ".join(f"{r}: {v:.2f}" for r, v in ranks.items()), enough <= 16),
        Outcome("with a small share of the parameters", f"{_counts(parameters)} trained", parameters["lora-8"] < parameters["full"] / 2),
        Outcome("prompt tuning comes closer to full with size", ", ".join(f"{v:.0%}" for v in shares.values()), shares["-large"] >= shares["-small"]),
        Outcome("single-task full fine-tuning forgets", f"topics named {topic('base'):.2f} before, {topic('full'):.2f} after", topic("full") < topic("base") - 0.2),
        Outcome("LoRA leaves the base as it was", f"{topic('lora-8'):.2f} with the adapter, {topic('base'):.2f} without", topic("lora-8") <= topic("base")),
        Outcome("the multi-task model keeps both", f"topics {topic('multitask'):.2f}, ROUGE-1 {rouge('multitask'):.2f}", topic("multitask") > topic("full")),
    ]


def _each(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in values.items())


OUTCOMES: dict[str, Callable[[Path], list[Outcome]]] = {
    "bloom-560m-chat": bloom_560m_chat,
    "falcon-180b-dolly": falcon_180b_dolly,
    "falcon-7b-summaries": falcon_7b_summaries,
    "flan-t5-methods": flan_t5_methods,
}
"""By the folder's name in specs/seeds."""
