"""Prompt tuning (Lester et al., 2021, arXiv:2104.08691): learned embeddings before each row, through peft."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.core.part import recipe
from stages.train.methods.base import AdapterMethod, task_type

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PromptTuning(AdapterMethod):
    """Learned embeddings before each row; the model is frozen."""

    kind: Literal["prompt_tuning"] = "prompt_tuning"
    num_virtual_tokens: int = recipe(20, "Number of learned embeddings.", gt=0)
    init: Literal["random", "vocabulary"] = recipe("vocabulary", "Initialization of the embeddings: random, or those of random tokens.")
    packs: ClassVar[bool] = False
    free_fields: ClassVar[frozenset[str]] = frozenset({"init"})
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    @property
    def virtual_tokens(self) -> int:
        """The number of learned embeddings, which use positions."""
        return self.num_virtual_tokens

    def configuration(self, model: "PreTrainedModel") -> Any:
        """peft's configuration."""
        from peft import PromptTuningConfig

        init = "SAMPLE_VOCAB" if self.init == "vocabulary" else "RANDOM"
        return PromptTuningConfig(num_virtual_tokens=self.num_virtual_tokens, prompt_tuning_init=init, task_type=task_type(model))
