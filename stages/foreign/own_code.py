"""Labels by the tools' own code: run by a Python that has the tool, with a JSON request on stdin; imports nothing of this project.

The request names `tool`, `config` (the configuration), `dataset` (its entry of this data set), `tokenizer` (a folder) and `rows`. The
result on stdout is a list with `[ids, labels]` of each row, one such pair for each piece, or null for a row that is left out.
"""

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def axolotl(request: dict[str, Any]) -> list[Any]:
    """By axolotl's own schema, tokenizer and choice of a strategy, and its rules on rows that are too long or teach nothing."""
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.config import validate_config
    from axolotl.utils.data import wrappers
    from axolotl.utils.data.utils import truncate_long_seq
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.trainer import filter_sequences_by_length
    from datasets import Dataset

    several = "pretraining_dataset" if request["config"].get("pretraining_dataset") else "datasets"
    # Plug-ins change the training, not its rows; their packages need not be there.
    given = {key: value for key, value in request["config"].items() if key not in ("plugins", "model_revision", "revision_of_model")}
    given |= {"base_model": request["tokenizer"], several: [request["dataset"]]}
    config = validate_config(DictDefault(given))
    config.base_model_config = config.tokenizer_config = request["tokenizer"]
    dataset = DictDefault(config[several][0])
    tokenizer = load_tokenizer(config)
    kind = dataset.type if isinstance(dataset.type, str) else ""
    base, _, style = kind.partition(":")
    chosen: list[Any] = []
    # Every strategy of the tool is passed to this function, which would label all rows at once.
    wrappers.wrap_dataset_for_tokenized_prompt = lambda strategy, *_, **__: chosen.append(strategy)
    rows = Dataset.from_list(request["rows"])
    wrappers.get_dataset_wrapper(dataset, tokenizer, config, base or None, rows, style or None)
    (strategy,) = chosen
    length, least = config.sequence_len, config.min_sample_len

    def kept(piece: dict[str, Any]) -> bool:
        learns = not config.sample_packing or several != "datasets" or any(label != -100 for label in piece["labels"])
        return learns and bool(filter_sequences_by_length(piece, length, least, config.excess_length_strategy == "raise"))

    found: list[Any] = []
    for row in rows:
        if getattr(strategy, "filter_rows", None) and not strategy.filter_rows(row):
            found.append(None)
            continue
        batched = strategy.supports_batched
        made = strategy.tokenize_prompt({key: [value] for key, value in row.items()} if batched else row)
        columns = {key: made[key] if batched else [made[key]] for key in ("input_ids", "labels") if key in made}
        if config.excess_length_strategy == "truncate":
            columns = truncate_long_seq(columns, length)
        ids = columns["input_ids"]
        pieces = [{"input_ids": one, "labels": other} for one, other in zip(ids, columns.get("labels", ids), strict=True)]
        found.append([(piece["input_ids"], piece["labels"]) for piece in pieces if kept(piece)] or None)
    return found


def llamafactory(request: dict[str, Any]) -> list[Any]:
    """By `llamafactory.data`: the converter of rows, the template, and the processor of the stage; packing joins these rows as they are."""
    from dataclasses import fields

    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.data.processor.pairwise import PairwiseDatasetProcessor
    from llamafactory.data.processor.pretrain import PretrainDatasetProcessor
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from llamafactory.model import load_tokenizer

    def arguments(kind: Any, **more: Any) -> Any:
        # Splits and caches are not of one row; their rules ask for other keys.
        names = {field.name for field in fields(kind) if field.init} - {"eval_dataset", "val_size", "tokenized_path", "dataset"}
        given = {key: value for key, value in request["config"].items() if key in names}
        return kind(**{key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in given.items()} | more)

    stage = request["config"].get("stage")
    texts, pairs = stage == "pt", stage == "dpo"
    packed = not pairs and (request["config"].get("neat_packing") or request["config"].get("packing", texts))
    data = arguments(DataArguments, packing=False, neat_packing=False)
    if texts and packed:
        # Texts are joined, and the blocks that are cut then know no rows: the texts are compared as they are before.
        data.cutoff_len = sys.maxsize >> 33
    tokenizer = load_tokenizer(arguments(ModelArguments, model_name_or_path=request["tokenizer"], model_revision="main"))["tokenizer"]
    attribute = DatasetAttr("file", dataset_name="rows")
    attribute.join(request["dataset"])
    template = get_template_and_fix_tokenizer(tokenizer, data)
    kind = PretrainDatasetProcessor if texts else PairwiseDatasetProcessor if pairs else SupervisedDatasetProcessor
    processor = kind(template=template, tokenizer=tokenizer, processor=None, data_args=data)
    convert = get_dataset_converter(attribute.formatting, attribute, data)
    found: list[Any] = []
    for row in request["rows"]:
        made = processor.preprocess_dataset({key: [value] for key, value in convert(row).items()})
        # A pair becomes two rows: of the chosen and of the rejected answer.
        sides = [(made[f"{side}input_ids"], made.get(f"{side}labels")) for side in (("chosen_", "rejected_") if pairs else ("",))]
        rows = [(ids[0], (labels or ids)[0]) for ids, labels in sides if ids]
        found.append(rows if rows and not (packed and len(rows[0][0]) > data.cutoff_len) else None)
    return found


def trl(request: dict[str, Any]) -> list[Any]:
    """By the preparation of `trl.SFTTrainer` or `trl.DPOTrainer`, around a model of one tiny layer; packing cuts each row by itself."""
    from dataclasses import fields

    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer, pack_dataset

    config = request["config"]
    pairs, packed = "chosen" in request["rows"][0], config.get("packing")
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"], local_files_only=True)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model, reference = (LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)) for _ in range(2))
    kind, trainer = (DPOConfig, DPOTrainer) if pairs else (SFTConfig, SFTTrainer)
    names = {
        *("max_length", "truncation_mode", "completion_only_loss", "assistant_only_loss", "dataset_text_field", "eos_token", "pad_token"),
        "chat_template_path",
    } & {field.name for field in fields(kind)}
    given = {key: value for key, value in config.items() if key in names}
    length = given.get("max_length", kind.max_length)
    given |= {"max_length": None} if packed else {}
    given |= {} if pairs else {"shuffle_dataset": False}
    rows = [{**row, "adapterbuild_row": number} for number, row in enumerate(request["rows"])]
    with TemporaryDirectory() as folder:
        arguments = kind(folder, use_cpu=True, bf16=False, report_to="none", **given)
        more = {"ref_model": reference} if pairs else {}
        made = trainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more)
    found: list[Any] = [None] * len(rows)
    for row in made.train_dataset:
        if pairs:
            asked = row["prompt_ids"]
            sides = [([*asked, *row[key]], [*[-100] * len(asked), *row[key]]) for key in ("chosen_ids", "rejected_ids")]
            found[row["adapterbuild_row"]] = [(ids[:length], labels[:length]) for ids, labels in sides]
            continue
        pieces = {key: [row[key]] for key in ("input_ids", "labels")}
        if packed:
            pieces = pack_dataset(Dataset.from_dict(pieces), length, config.get("packing_strategy", "bfd"))[:]
        found[row["adapterbuild_row"]] = [*zip(pieces["input_ids"], pieces["labels"], strict=True)]
    return found


def main() -> None:
    """Answer the request on stdin; what the tool prints goes to stderr."""
    # Modules beside this one have the names of the tools.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    request = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)
    answer = {"axolotl": axolotl, "llamafactory": llamafactory, "trl": trl}[request["tool"]](request)
    with os.fdopen(out, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)


if __name__ == "__main__":
    main()
