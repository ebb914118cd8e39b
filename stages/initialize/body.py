"""Body of initialize: trains a tokenizer on the tasks' text and creates a model with random weights for it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import UserError
from stages.initialize import Parameters
from stages.initialize.tokenizers.special import EOS, PAD
from stages.models.folders import auto_class, count_parameters, prepare_process, save_model, write_json
from stages.process.job import Job, Metrics
from stages.rows.rows import read_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write a `from_pretrained` folder with tokenizer and model; raises UserError if there is no text to train the tokenizer on."""
    # More threads would not help: random numbers are drawn sequentially, and the tokenizer has its own threads.
    prepare_process(threads=1, parts=1)
    tokenizer = parameters.tokenizer.train(texts(job.group("rows")))
    model = _random_model(parameters, tokenizer)
    save_model(model, job.output)
    _save_tokenizer(tokenizer, parameters, job.output)
    return {"parameters": count_parameters(model), "vocab_size": tokenizer.get_vocab_size()}


def texts(rows: Mapping[str, Path]) -> Iterator[str]:
    """Prompt and completion, or all messages, of each row, task by task in order of name; raises UserError if there are none."""
    empty = True
    for _, path in sorted(rows.items()):
        for row in read_rows(path):
            empty = False
            # A message that only calls tools has no content.
            said = "\n".join(str(message["content"] or "") for message in row.messages)
            yield said if row.messages else row.prompt + row.completion
    if empty:
        raise UserError(
            "no rows to train the tokenizer on", hint="give the tasks more rows, or decrease the shares of their held-out splits"
        )


def _random_model(parameters: Parameters, tokenizer: "Tokenizer") -> "PreTrainedModel":
    import torch

    eos, pad = tokenizer.token_to_id(EOS), tokenizer.token_to_id(PAD)
    assert eos is not None and pad is not None
    config = parameters.architecture.config(tokenizer.get_vocab_size(), eos, pad)
    torch.manual_seed(parameters.seed)
    model: PreTrainedModel = auto_class(config).from_config(config, dtype=torch.float32, trust_remote_code=False)
    return model


def _save_tokenizer(tokenizer: "Tokenizer", parameters: Parameters, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"), pretty=True)
    # Written directly: the class name that transformers 5 would write is unknown to transformers 4.
    description = {
        **({"bos_token": parameters.tokenizer.bos} if parameters.tokenizer.bos else {}),
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "model_max_length": parameters.architecture.max_length,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", description)
