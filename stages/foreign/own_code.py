"""Labels by the tools' own code: run by a Python that has the tool, with a JSON request on stdin; imports nothing of this project.

The request names `tool`, `config` (the configuration), `dataset` (its entry of this data set), `tokenizer` (a folder) and `rows`. The
result on stdout is a list with `[ids, labels]` of each row, one such pair for each piece, or null for a row that is left out.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def axolotl(request: dict[str, Any], tokenizer: Any) -> list[Any]:
    """By `axolotl.prompt_strategies`, and the rule on long rows of `axolotl.utils.data`."""
    from axolotl.prompt_strategies import load
    from axolotl.prompt_tokenizers import AlpacaPromptTokenizingStrategy
    from axolotl.prompters import AlpacaPrompter
    from axolotl.utils.dict import DictDefault

    config, dataset = DictDefault(request["config"]), dict(request["dataset"])
    config.sequence_len = config.sequence_len or 512
    kind = dataset.get("type")
    if isinstance(kind, str) and kind.partition(":")[0] == "alpaca":
        prompter = AlpacaPrompter(kind.partition(":")[2] or "instruct")
        strategy = AlpacaPromptTokenizingStrategy(prompter, tokenizer, bool(config.train_on_inputs), config.sequence_len)
    elif isinstance(kind, dict):
        strategy = load("user_defined", tokenizer, config, kind)
    else:
        strategy = load(kind, tokenizer, config, dataset)
    found: list[Any] = []
    for row in request["rows"]:
        batched = kind in ("completion", "pretrain")
        made = strategy.tokenize_prompt({key: [value] for key, value in row.items()} if batched else row)
        pieces = [*zip(made["input_ids"], made["labels"], strict=True)] if batched else [(made["input_ids"], made["labels"])]
        kept = [(ids, labels) for ids, labels in pieces if 2 <= len(ids) <= config.sequence_len]
        if config.excess_length_strategy == "truncate":
            kept = [(ids[: config.sequence_len], labels[: config.sequence_len]) for ids, labels in pieces]
        found.append(kept or None)
    return found


def llamafactory(request: dict[str, Any], tokenizer: Any) -> list[Any]:
    """By `llamafactory.data`: the converter of rows, the template, and the processor for supervised training."""
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.data.processor.pretrain import PretrainDatasetProcessor
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    known = ("template", "cutoff_len", "train_on_prompt", "mask_history", "default_system", "enable_thinking", "tool_format")
    arguments = DataArguments(**{key: value for key, value in request["config"].items() if key in known})
    attribute = DatasetAttr("file", dataset_name="rows")
    attribute.join(request["dataset"])
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    texts = request["config"].get("stage") == "pt"
    processor = (PretrainDatasetProcessor if texts else SupervisedDatasetProcessor)(
        template=template, tokenizer=tokenizer, processor=None, data_args=arguments
    )
    convert = get_dataset_converter(attribute.formatting, attribute, arguments)
    packed = request["config"].get("packing") or request["config"].get("neat_packing")
    found: list[Any] = []
    for row in request["rows"]:
        converted = convert(row)
        made = processor.preprocess_dataset({key: [value] for key, value in converted.items()})
        ids = made["input_ids"]
        labels = made.get("labels", ids)
        dropped = not ids or (packed and len(ids[0]) > arguments.cutoff_len)
        found.append(None if dropped else [(ids[0], labels[0])])
    return found


def main() -> None:
    """Answer the request on stdin; what the tool prints goes to stderr."""
    # Modules beside this one have the names of the tools.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    request = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"], local_files_only=True)
    tools = SimpleNamespace(axolotl=axolotl, llamafactory=llamafactory)
    answer = getattr(tools, request["tool"])(request, tokenizer)
    with os.fdopen(out, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)


if __name__ == "__main__":
    main()
