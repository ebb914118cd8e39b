"""transformers with a folder, used as its documentation says: the folder's own tokenizer, template and generation configuration."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from stages.export.runtimes.base import MOST, Chat, Said
from stages.models.folders import json_object
from stages.models.positions import rotary
from stages.tokens.ends import CONFIG

_TIED = "tie_word_embeddings"


def next_tokens(model: Any, prompt: Sequence[int]) -> dict[int, float]:
    """The `MOST` largest log-probabilities of the token after PROMPT, by id."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(prompt)], device=model.device), use_cache=False).logits[0, -1].float().cpu()
    values, ids = torch.log_softmax(logits, 0).topk(min(MOST, len(logits)))
    return dict(zip(ids.tolist(), values.tolist(), strict=True))


class Transformers:
    """MODEL in memory, FOLDER with its tokenizer and configurations, and the folder of the model that it is exported from."""

    name = "transformers"

    def __init__(self, folder: Path, model: Any, trained: Path) -> None:
        self._model = model
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
        self._folder, self._trained = folder, trained

    @property
    def positions(self) -> Mapping[str, Any]:
        """Those of the folder's configuration."""
        return rotary(json_object(self._folder / CONFIG))

    @property
    def output_layer(self) -> str | None:
        """Whether the folder's configuration shares the matrix as the trained model's does."""
        shared, wanted = (bool(json_object(place / CONFIG).get(_TIED, True)) for place in (self._folder, self._trained))
        return None if shared == wanted else f"{_TIED} is {str(shared).lower()}, and {str(wanted).lower()} in the trained model"

    @property
    def template(self) -> str | None:
        """The tokenizer's chat template."""
        found = self._tokenizer.chat_template
        return found if isinstance(found, str) else None

    def read_text(self, text: str) -> list[int]:
        """The ids that the tokenizer makes of TEXT: without tokens around it where a chat template writes them, as chats are read."""
        return list(self._tokenizer(text, add_special_tokens=self.template is None)["input_ids"])

    def read_chat(self, chat: Chat) -> list[int]:
        """The ids that the tokenizer makes of CHAT."""
        found = self._tokenizer.apply_chat_template(
            list(chat.messages), tools=list(chat.tools) or None, add_generation_prompt=True, return_dict=True
        )
        return list(found["input_ids"])

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        found = self._generation.eos_token_id
        return tuple(found) if isinstance(found, list) else () if found is None else (found,)

    def answer(self, prompt: Sequence[int], max_new_tokens: int) -> Said:
        """The greedy answer after PROMPT."""
        ids = torch.tensor([list(prompt)], device=self._model.device)
        # Of the folder's settings only those that decide where an answer ends: published ones may sample, or penalise repetition.
        greedy = {"do_sample": False, "num_beams": 1, "max_new_tokens": max_new_tokens}
        settings = GenerationConfig(**greedy, eos_token_id=list(self._ends) or None, pad_token_id=self._generation.pad_token_id)
        below = self._model.get_base_model() if hasattr(self._model, "get_base_model") else self._model
        self._model.generation_config = below.generation_config = settings
        with torch.inference_mode():
            made = self._model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))[0, len(prompt) :].tolist()
        stopped = bool(made) and made[-1] in self._ends
        return Said(tuple(made[: len(made) - stopped]), stopped)

    def next_tokens(self, prompt: Sequence[int]) -> dict[int, float]:
        """The largest log-probabilities of the token after PROMPT."""
        return next_tokens(self._model, prompt)

    def stops_at(self, token: int) -> bool:
        """Whether the generation configuration names TOKEN as an end."""
        return token in self._ends
