"""What the published experiments found, asked of the metrics of their tiny twins."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.dvc.run_records import parse, path_of


@dataclass(frozen=True)
class Outcome:
    """One thing that was published, what the twin measured, and whether it is so here too."""

    claim: str
    measured: str
    holds: bool
    needed: bool = True
    """Whether the twin must show it; False: it is measured, and at this size it is not so."""


@dataclass(frozen=True)
class Workspace:
    """What a build left."""

    folder: Path

    def metrics(self, step: str) -> Any:
        """The metrics of a step."""
        return json.loads((self.folder / f"metrics/{step}.json").read_text("utf-8"))

    def value(self, experiment: str, task: str, metric: str, model: str = "") -> float:
        """One value of an evaluation: of the experiment, or of a MODEL that it is compared with."""
        return float(self._score(experiment, task, metric, model)["value"])

    def interval(self, experiment: str, task: str, metric: str, model: str = "") -> str:
        """The value with its interval of 95 %."""
        one = self._score(experiment, task, metric, model)
        return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"

    def _score(self, experiment: str, task: str, metric: str, model: str) -> Any:
        models = json.loads((self.folder / f"artifacts/evaluate-{experiment}/scores.json").read_text("utf-8"))["models"]
        own = next(iter(models))  # then those that it is compared with
        return models[model or own][task][metric]

    def real(self, experiment: str, task: str, metric: str, other: str) -> bool:
        """Whether the experiment is above another model on the same rows, by the evaluation's own test."""
        found = json.loads((self.folder / f"artifacts/evaluate-{experiment}/comparisons.json").read_text("utf-8"))["comparisons"]
        (one,) = [each for each in found if (each["task"], each["metric"], each["other"]) == (task, metric, other)]
        return bool(one["real"] and one["difference"] > 0)

    def measured(self, step: str) -> Mapping[str, Any]:
        """What a step measured of itself."""
        found = parse((self.folder / path_of(step)).read_bytes())
        assert found, f"{step} has no run record"
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
    match = {name: {task: here.value(f"{name}-tiny", task, "exact_match") for task in TASKS} for name in ("base", *TASKS, "multitask")}
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


REAL_TASKS = ("person", "polarity", "passive")


def smollm2(folder: Path) -> list[Outcome]:
    """SmolLM2-135M-Instruct: three single-task adapters, and one for all three tasks."""
    here = Workspace(folder)
    names = (*REAL_TASKS, "multitask")
    match = {name: {task: here.value(name, task, "exact_match") for task in REAL_TASKS} for name in names}
    base, multitask = [here.value("multitask", task, "exact_match", "base") for task in REAL_TASKS], match["multitask"]
    own, others = [match[task][task] for task in REAL_TASKS], [match[a][b] for a in REAL_TASKS for b in REAL_TASKS if a != b]

    def around(name: str, task: str) -> str:
        return here.interval(name, task, "exact_match")

    return [
        Outcome("the model as it was published does none of the tasks", f"exact {_each(base)}", max(base) <= 0.3),
        Outcome(
            "a single-task adapter does its own task",
            "exact " + ", ".join(around(task, task) for task in REAL_TASKS),
            all(value > before + 0.2 for value, before in zip(own, base, strict=True)),
        ),
        Outcome("and others badly", f"exact {_each(others)}", sum(others) / len(others) < sum(own) / len(own) / 2),
        Outcome(
            "the multi-task adapter does all three",
            "exact " + ", ".join(around("multitask", task) for task in REAL_TASKS),
            all(multitask[task] > match[task][task] - 0.15 for task in REAL_TASKS),
        ),
    ]


def smollm2_preferences(folder: Path) -> list[Outcome]:
    """SmolLM2-135M-Instruct learns from pairs of its own samples that brief and right answers are better."""
    here = Workspace(folder)

    def told(task: str, metric: str) -> str:
        return " → ".join(here.interval("brief", task, metric, model) for model in ("asked", ""))

    def values(task: str, metric: str) -> list[float]:
        return [here.value("brief", task, metric, model) for model in ("asked", "")]

    answers = [json.loads(line)["answer"].lower() for line in (folder / "artifacts/predict-brief/predictions-polarity.jsonl").open()]
    both = sum("positive" in answer and "negative" in answer for answer in answers)
    (long, short), (known, kept) = values("polarity", "length"), values("passive", "rouge1")
    pairs = here.metrics("pair-samples")
    of_prompts = f"{pairs['pairs']} of {pairs['prompts']} prompts, margin {pairs['margin']:.2f}"
    return [
        Outcome("its own samples differ enough to make pairs", of_prompts, pairs["pairs"] >= pairs["prompts"] / 4),
        Outcome("answers become brief", f"tokens {told('polarity', 'length')}", short < long / 2),
        Outcome("and right, word by word", f"F1 {told('polarity', 'token_f1')}", here.real("brief", "polarity", "token_f1", "asked")),
        Outcome("without naming both words", f"{both} of {len(answers)} answers name both", both <= len(answers) / 10, needed=False),
        Outcome("another task is not forgotten", f"ROUGE-1 {told('passive', 'rouge1')}", kept > known - 0.1, needed=False),
        Outcome("nor answered briefly instead", f"tokens {told('passive', 'length')}", True, needed=False),
    ]


def falcon_180b_dolly(folder: Path) -> list[Outcome]:
    """LoRA with ZeRO-3, packed rows, adapter alone and merged."""
    return _dolly(Workspace(folder), "adapter-tiny")


def falcon_180b_dolly_real(folder: Path) -> list[Outcome]:
    """The same on SmolLM2-135M-Instruct."""
    return _dolly(Workspace(folder), "adapter-real")


def _dolly(here: Workspace, name: str) -> list[Outcome]:
    before, after = (here.value(name, "dolly", "perplexity", model) for model in ("base", ""))
    mixed, merged, trained = (here.metrics(f"{kind}-{name}") for kind in ("mix", "merge", "train"))
    adapter, whole = here.size(f"train-{name}"), here.size(f"merge-{name}")
    share = trained["trainable_parameters"] / trained["parameters"]
    told = " → ".join(here.interval(name, "dolly", "perplexity", model) for model in ("base", ""))
    packed, apart = mixed["packing_efficiency"], merged["logit_difference"]
    return [
        Outcome("instructions are learned", f"perplexity {told}", after < before),
        Outcome("a small share of the weights is trained", f"{share:.1%}", share < 0.2),
        Outcome("only the adapter is saved", f"{adapter / 1e6:.2f} MB, merged {whole / 1e6:.2f} MB", adapter < whole / 2),
        Outcome("rows fill sequences of 2,048", f"{packed:.1%} of the tokens are rows", packed > 0.8),
        Outcome("merged and adapted agree", f"largest difference of logits {apart:.1e}", apart <= 1e-4),
    ]


def bloom_560m_chat(folder: Path) -> list[Outcome]:
    """Three ways of labels on five rows."""
    here = Workspace(folder)
    right = {name: here.value(f"{name}-tiny", "recall", "exact_match") for name in ("base", "full", "full-twice", "trl")}
    right["masked"] = here.value("masked-tiny", "recall_unmarked", "exact_match")
    epochs = {name: here.metrics(f"train-{name}-tiny")["steps"] // 5 for name in ("full", "full-twice", "masked", "trl")}
    tokens = [folder / f"artifacts/tokenize-{name}/train.safetensors" for name in ("unmarked-tiny-masked", "translate-tiny-completion")]
    same = tokens[0].read_bytes() == tokens[1].read_bytes()

    def learned(name: str) -> str:
        return f"{5 * right[name]:.0f} of 5 answers after {epochs[name]} epochs"

    times = {name: here.measured(f"train-{name}-tiny")["training_seconds"] / count for name, count in epochs.items()}
    return [
        Outcome("the model does not know the words before", f"{5 * right['base']:.0f} of 5 answers", right["base"] < 1),
        Outcome("masked labels reach the answers", learned("masked"), right["masked"] == 1),
        Outcome("full labels do not, in that time", learned("full"), right["full"] < 1),
        Outcome("in twice the time they do", learned("full-twice"), right["full-twice"] == 1),
        Outcome("the third way learns the same labels", learned("trl"), same and right["trl"] == 1),
        Outcome("seconds per epoch", ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items()), True),
    ]


def bloom_560m_chat_real(folder: Path) -> list[Outcome]:
    """Three ways of labels on SmolLM2-135M: five rows at the published rate, and three hundred."""
    here = Workspace(folder)

    def recall(name: str, task: str) -> str:
        return f"{task}_unmarked" if name == "masked" else task

    def right(name: str) -> float:
        return here.value(f"{name}-real", recall(name, "recall"), "exact_match")

    def around(name: str) -> str:
        return f"{name} " + here.interval(f"{name}-pairs", recall(name, "recall_pairs"), "exact_match")

    five = {name: right(name) for name in ("full", "full-twice", "masked", "trl")}
    pairs = {name: here.value(f"{name}-pairs", recall(name, "recall_pairs"), "exact_match") for name in ("full", "masked", "trl")}
    return [
        Outcome("masked labels reach the five answers in 15 epochs", f"{5 * five['masked']:.0f} of 5", five["masked"] == 1, needed=False),
        Outcome("the third way too", f"{5 * five['trl']:.0f} of 5", five["trl"] == 1, needed=False),
        Outcome("full labels do not", f"{5 * five['full']:.0f} of 5", five["full"] < 1, needed=False),
        Outcome("in twice the time they do", f"{5 * five['full-twice']:.0f} of 5", five["full-twice"] == 1, needed=False),
        Outcome(
            "of three hundred pairs, masked labels reach more in 3 epochs than full ones",
            ", ".join(around(name) for name in pairs),
            min(pairs["masked"], pairs["trl"]) > pairs["full"],
            needed=False,
        ),
    ]


RANKS = (1, 2, 4, 8, 16, 32, 64)


def _twin(name: str) -> str:
    """The twin of an experiment; a point of the sweep of ranks is named behind its spec."""
    stem, _, rank = name.partition("lora-")
    return f"{stem}lora-tiny-{rank}" if rank else f"{name}-tiny"


def flan_t5_methods(folder: Path) -> list[Outcome]:
    """Methods, ranks and sizes against each other, and what is forgotten."""
    here = Workspace(folder)

    def rouge(name: str) -> float:
        return here.value(_twin(name), "summary", "rouge1")

    return [*_methods(here, rouge), *_ranks(rouge), *_sizes(rouge), _parameters(here), *_forgotten(here)]


Score = Callable[[str], float]


def _methods(here: Workspace, rouge: Score) -> Iterator[Outcome]:
    def around(name: str) -> str:
        return here.interval(_twin(name), "summary", "rouge1")

    def above(name: str) -> bool:
        return here.real(_twin(name), "summary", "rouge1", "base")

    base, full, low = rouge("base"), rouge("full"), rouge("lora-8")
    yield Outcome("full fine-tuning is above the base", f"ROUGE-1 {around('full')}, base {around('base')}", above("full"))
    yield Outcome("LoRA is above it too", f"ROUGE-1 {around('lora-8')} at r = 8", above("lora-8"))
    yield _gain(base, full, low)
    yield Outcome("prompt tuning is above the base", f"ROUGE-1 {around('prompt')}", above("prompt"), needed=False)


def _gain(base: float, full: float, low: float) -> Outcome:
    """How much of what full fine-tuning gains over the base LoRA gains; a full fine-tuning that gains nothing has no such share."""
    if full <= base:
        return Outcome("LoRA gains nearly as much", "full fine-tuning gains nothing", False, needed=False)
    gain = (low - base) / (full - base)
    return Outcome("LoRA gains nearly as much", f"{gain:.0%} of the gain at r = 8", gain > 0.9, needed=False)


def _ranks(rouge: Score) -> Iterator[Outcome]:
    values = {r: rouge(f"lora-{r}") for r in RANKS}
    enough = next(r for r, value in values.items() if value >= max(values.values()) - 0.03)
    told = ", ".join(f"{r}: {value:.2f}" for r, value in values.items())
    yield Outcome("quality saturates at a small rank", f"{told}; within 0.03 of the best from r = {enough}", enough <= 16)


def _sizes(rouge: Score) -> Iterator[Outcome]:
    shares = [rouge(f"prompt{size}") / rouge(f"full{size}") for size in ("-small", "", "-large")]
    told = ", ".join(f"{share:.0%}" for share in shares)
    yield Outcome("prompt tuning comes closer to full with size", f"{told} of full's ROUGE-1", shares == sorted(shares), needed=False)


def _parameters(here: Workspace) -> Outcome:
    found = {name: here.metrics(f"train-{_twin(name)}")["trainable_parameters"] for name in ("full", "lora-8", "prompt")}
    told = ", ".join(f"{name} {count:,}" for name, count in found.items())
    return Outcome("few parameters are trained", told, found["prompt"] < found["lora-8"] < found["full"] / 2)


def _forgotten(here: Workspace) -> Iterator[Outcome]:
    named = {name: here.value(_twin(name), "topic", "exact_match") for name in ("base", "full", "lora-8", "multitask")}
    base, full = named["base"], named["full"]
    yield Outcome("single-task full fine-tuning forgets", f"topics named {base:.2f} before, {full:.2f} after", full < base - 0.2)
    yield Outcome("LoRA does not", f"topics named {named['lora-8']:.2f} with the adapter", named["lora-8"] > base - 0.2, needed=False)
    yield Outcome("the multi-task model forgets little", f"topics named {named['multitask']:.2f}", named["multitask"] > full + 0.2)


def flan_t5_methods_real(folder: Path) -> list[Outcome]:
    """SmolLM2-135M-Instruct: methods and ranks on summaries of dialogues, and what each forgets."""
    here = Workspace(folder)
    names = ("full", "multitask", "prompt", *(f"lora-{rank}" for rank in RANKS))
    specs = {name: f"{name}-real" if "lora" not in name else name.replace("lora-", "lora-real-") for name in names}
    rouge = {name: here.value(spec, "summary", "rouge1") for name, spec in specs.items()}
    base = here.value("full-real", "summary", "rouge1", "base")
    enough = next(r for r in RANKS if rouge[f"lora-{r}"] >= max(rouge[f"lora-{rank}"] for rank in RANKS) - 0.03)
    topic = {name: here.value(specs[name], "topic", "exact_match") for name in ("full", "lora-8", "multitask")}
    before = here.value("full-real", "topic", "exact_match", "base")
    surprise = {name: here.value(specs[name], "paragraphs", "perplexity") for name in ("full", "lora-8", "prompt", "multitask")}
    text = here.interval("full-real", "paragraphs", "perplexity", "base")
    trained = {name: here.metrics(f"train-{specs[name]}")["trainable_parameters"] for name in ("full", "lora-8", "prompt")}

    def around(name: str) -> str:
        return here.interval(specs[name], "summary", "rouge1")

    def above(name: str) -> bool:
        return here.real(specs[name], "summary", "rouge1", "base")

    return [
        Outcome(
            "full fine-tuning is above the base",
            f"ROUGE-1 {around('full')}, base {here.interval('full-real', 'summary', 'rouge1', 'base')}",
            above("full"),
        ),
        Outcome("LoRA is above it too", f"ROUGE-1 {around('lora-8')} at r = 8", above("lora-8")),
        _gain(base, rouge["full"], rouge["lora-8"]),
        Outcome("prompt tuning is above the base", f"ROUGE-1 {around('prompt')}", above("prompt"), needed=False),
        Outcome(
            "quality saturates at a small rank",
            ", ".join(f"{r}: {rouge[f'lora-{r}']:.2f}" for r in RANKS) + f"; within 0.03 of the best from r = {enough}",
            enough <= 16,
        ),
        Outcome(
            "few parameters are trained",
            ", ".join(f"{name} {count:,}" for name, count in trained.items()),
            trained["prompt"] < trained["lora-8"] < trained["full"] / 2,
        ),
        Outcome(
            "single-task full fine-tuning forgets the other task",
            f"topics named {before:.2f} before, {topic['full']:.2f} after",
            topic["full"] < before,
            needed=False,
        ),
        Outcome(
            "the multi-task model learns it",
            f"topics named {topic['multitask']:.2f}",
            topic["multitask"] > topic["full"] + 0.2,
            needed=False,
        ),
        Outcome(
            "full fine-tuning forgets more of its language than LoRA",
            f"perplexity on paragraphs {text} before, " + ", ".join(f"{name} {value:.1f}" for name, value in surprise.items()),
            surprise["full"] > surprise["lora-8"],
            needed=False,
        ),
    ]


def _each(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


OUTCOMES: dict[str, Callable[[Path], list[Outcome]]] = {
    "bloom-560m-chat": bloom_560m_chat,
    "bloom-560m-chat-real": bloom_560m_chat_real,
    "falcon-180b-dolly": falcon_180b_dolly,
    "falcon-180b-dolly-real": falcon_180b_dolly_real,
    "falcon-7b-summaries": falcon_7b_summaries,
    "flan-t5-methods": flan_t5_methods,
    "flan-t5-methods-real": flan_t5_methods_real,
    "smollm2": smollm2,
    "smollm2-preferences": smollm2_preferences,
}
"""By the experiment's name."""
