"""Edits that change what users get: each must be noticed by a step of the golden suite."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One edit of one module, and the steps of the suite of which one at least must then leave other bytes, or fail."""

    file: str
    old: str
    new: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()!r} → {self.new.strip()!r}"


def _edit(file: str, old: str, new: str, *steps: str) -> Mutation:
    return Mutation(f"stages/{file}.py", old, new, steps)


CHATS = ("tokenize-messages-toy-turns", "tokenize-messages-toy-marked", "tokenize-messages-toy-split", "tokenize-messages-toy-completion")

MUTATIONS = (
    # rows
    _edit("generate/prompting", '"prompt", self.seed, content', '"prompts", self.seed, content', "generate-words", "generate-phrasings"),
    _edit("generate/prompting", "example.group != group", "example.group == group", "generate-examples"),
    _edit("generate/cleaning/duplicates", "if key in seen:", "if key in seen and False:", "generate-cleaned"),
    _edit("generate/cleaning/near_duplicates", ">= self.threshold for", "> 1 for", "generate-cleaned"),
    _edit("generate/cleaning/overlap", "len(found) >= min(self.shortest, self.ngram)", "len(found) > self.ngram", "generate-cleaned"),
    _edit("generate/cleaning/script", "allowed / counts.total() < self.min_share", "allowed < 0", "generate-cleaned"),
    _edit("generate/cleaning/length", "size > most", "size > most + 9", "generate-cleaned"),
    _edit("generate/cleaning/characters", "forbidden.intersection(text)", "forbidden.difference(text)", "generate-cleaned"),
    _edit("generate/layout", '("user", "human", "prompter"), "user"', '("user", "human", "prompter"), "system"', "generate-sharegpt"),
    _edit("rows/splits", "position < shares.test", "position <= shares.test / 2", "split-words", "split-double", "split-csv"),
    _edit("split/body", 'seed_from("cap", self.parameters.seed, identity)', "identity", "split-fixed"),
    # models and tokenizers
    _edit("initialize/body", "torch.manual_seed(parameters.seed)", "torch.manual_seed(parameters.seed + 1)", "initialize-toy"),
    _edit("initialize/body", "row.prompt + row.completion", "row.prompt", "initialize-toy"),
    _edit("vocabulary/body", "normalized=False, special", "normalized=True, special", "vocabulary-toy-turns"),
    # tokens
    _edit(
        "tokenize/masks/assistant",
        'self.turns == "all"',
        'self.turns != "all"',
        "tokenize-messages-toy-turns",
        "tokenize-messages-toy-last",
    ),
    _edit("tokenize/masks/completion", "number == last", "number <= last", "tokenize-messages-toy-completion"),
    _edit("tokenize/masks/full", "everything: ClassVar[bool] = True", "everything: ClassVar[bool] = False", *CHATS),
    _edit("tokenize/lengths", "limit - (over - end)", "limit - (over - end) - 1", "tokenize-messages-toy-right"),
    _edit("tokenize/lengths", "supervised[start - context : start] = 0", "pass", *CHATS),
    _edit("tokenize/lengths", "np.where(damaged, 0, row.supervised)", "row.supervised", "tokenize-messages-toy-left"),
    # mixtures
    _edit("mix/samplers/temperature", "1 / self.temperature", "self.temperature", "mix-learned"),
    _edit("mix/samplers/sizes", "min(count, self.caps.get(name, count))", "count", "mix-mixed-capped"),
    _edit("mix/samplers/sizes", "self.upsampling[name]", "1", "mix-mixed-capped"),
    _edit("mix/samplers/equal", "max(", "min(", "mix-mixed-equal", "mix-mixed-curriculum"),
    _edit("mix/packing", "space - each * length", "space - length", "mix-packed"),
    # training
    _edit("models/projection", "-supervised.shape[1] - 1 : -1", "-supervised.shape[1] :", "train-base"),
    _edit("train/loop/loss", "/ supervised_tokens", "/ len(targets)", "train-base", "train-method-lora", "train-packed", "train-tokens"),
    _edit("models/projection", "labels[:, 1:] >= 0", "labels[:, 1:] >= -100", "train-base"),
    _edit("train/loop/schedule", "(step + 1) / (warmup + 1)", "step / (warmup + 1)", "train-base"),
    _edit("train/loop/schedule", "math.cos(math.pi * progress)", "math.cos(math.pi * progress / 2)", "train-base"),
    _edit("train/loop/schedule", "return 1 - progress", "return 1 - progress / 2", "train-learned"),
    _edit("train/loop/schedule", "math.sqrt((warmup + 1) / (step + 1))", "math.sqrt((warmup + 1) / (step + 2))", "train-method-qlora"),
    _edit("train/loop/schedule", "min(1.0, (steps - step) / decay)", "min(1.0, (steps - step) / decay / 2)", "train-method-ia3"),
    _edit("train/loop/noise", "alpha / torch.sqrt", "2 * alpha / torch.sqrt", "train-method-full"),
    _edit("train/loop/dropout", "_wrapped(self.seed * 2 + 1)", "_wrapped(self.seed * 2 + 3)", "train-method-full", "train-method-lora"),
    _edit("train/optimizers/adafactor", "d=self.clip", "d=self.clip * 2", "train-method-adafactor"),
    _edit("train/optimizers/adafactor", "beta2_decay=self.beta2_decay", "beta2_decay=self.beta2_decay / 2", "train-method-adafactor"),
    _edit("train/methods/base", "lora_alpha=self.lora_alpha", "lora_alpha=self.lora_alpha + 1", "train-method-lora"),
    _edit("train/methods/ia3", "feedforward_modules=list(inputs)", "feedforward_modules=[]", "train-method-ia3"),
    _edit(
        "models/quantisation",
        "compress_statistics=quantisation.double_quant",
        "compress_statistics=False",
        "train-method-qlora",
        "merge-rounded",
    ),
    # answers and values
    _edit("predict/gumbel", 'seed_from("sample", seed, row)', 'seed_from("sample", seed + 1, row)', "predict-scores"),
    _edit("predict/likelihood", "max(len(s), 1)", "len(s)", "predict-learned"),
    _edit("predict/body", "bool(ids) and ids[-1] in ends", "bool(ids)", "predict-base", "predict-scores"),
    _edit("evaluate/metrics/exact_match", "answer == reference.strip()", "answer != reference.strip()", "evaluate-learned"),
    _edit("evaluate/metrics/token_f1", "return 2 * shared", "return shared", "evaluate-learned"),
    _edit("evaluate/metrics/unit_tests", '"\\n".join(references_of(p))', "references_of(p)[0]", "evaluate-tested"),
    _edit("evaluate/sandbox", "        found()", "        pass", "evaluate-tested"),
    _edit("evaluate/metrics/novelty", "gram not in known", "gram in known", "evaluate-scores"),
    _edit(
        "statistics/resampling",
        "[(1 - confidence) / 2, (1 + confidence) / 2]",
        "[1 - confidence, confidence]",
        "evaluate-learned",
    ),
    _edit(
        "statistics/resampling", "rng.integers(0, count, (size, count))", "rng.integers(0, count, (size, count)) // 2", "evaluate-learned"
    ),
    # merges
    _edit("merge/combinations/ties", '"density": self.density', '"density": self.density / 2', "merge-merged-ties"),
    _edit("merge/combinations/dare_linear", '"density": self.density', '"density": self.density / 2', "merge-merged-dare-linear"),
    _edit("merge/combinations/svd", '"svd_rank": self.rank', '"svd_rank": 1', "merge-merged-svd"),
)
"""Masks, packing, schedules, losses, samplers, optimizers, methods, metrics, merges, prompts: at least one of each sort."""
