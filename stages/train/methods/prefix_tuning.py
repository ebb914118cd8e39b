"""Prefix tuning (Li and Liang, 2021, arXiv:2101.00190): learned keys and values before each row, in every layer, through peft."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from engine.core.part import recipe
from stages.train.methods.base import AdapterMethod, task_type

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PrefixTuning(AdapterMethod):
    """Learned keys and values before each row in every layer; the model is frozen."""

    kind: Literal["prefix_tuning"] = "prefix_tuning"
    num_virtual_tokens: int = recipe(20, "Number of learned keys and values per layer.", gt=0)
    packs: ClassVar[bool] = False
    checkpoints_layers: ClassVar[bool] = False
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    @property
    def virtual_tokens(self) -> int:
        """The number of learned keys and values, which use positions."""
        return self.num_virtual_tokens

    def configuration(self, model: "PreTrainedModel") -> Any:
        """peft's configuration."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(num_virtual_tokens=self.num_virtual_tokens, task_type=task_type(model), **_shared_heads(model))


def _shared_heads(model: "PreTrainedModel") -> dict[str, int]:
    """peft options for Falcon 7B's multi-query attention, whose configuration lacks the key that peft reads."""
    config = model.config
    if config.model_type != "falcon" or config.new_decoder_architecture:
        return {}
    width = config.hidden_size // config.num_attention_heads
    heads = 1 if config.multi_query else config.num_attention_heads
    return {"num_attention_heads": heads, "token_dim": heads * width}
