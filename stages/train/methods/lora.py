"""LoRA (Hu et al., 2021, arXiv:2106.09685): low-rank updates of frozen weights, through peft."""

from typing import ClassVar, Literal

from stages.train.methods.base import LowRank


class Lora(LowRank):
    """Low-rank updates of frozen weights; the result is an adapter."""

    kind: Literal["lora"] = "lora"
    learns_new_tokens: ClassVar[bool] = True
    environment: ClassVar[tuple[str, ...]] = ("peft",)

    def refused(self, model_type: str) -> str | None:
        """A message for olora on GPT-2: peft does not transpose its matrices."""
        if self.init_lora_weights == "olora" and model_type == "gpt2":
            return 'init_lora_weights "olora" fails on GPT-2, whose matrices are transposed (peft 0.21); use "pissa"'
        return super().refused(model_type)
