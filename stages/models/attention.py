"""Choice of the attention implementation; results differ by rounding only."""

import sys
from dataclasses import dataclass
from typing import Any, Literal

Attention = Literal["auto", "sdpa", "eager", "flex", "flash_attention_2", "flash_attention_3"]

_NAMES = {"flex": "flex_attention"}
_SUPPORT = {"sdpa": "_supports_sdpa", "flex_attention": "_supports_flex_attn"}
_FLASH = ("flash_attention_3", "flash_attention_2")


@dataclass(frozen=True)
class Choice:
    """The implementation, by transformers' name, and why it is not the requested one, if so."""

    implementation: str
    reason: str | None = None


def choose(asked: Attention, model_class: Any, dtype: str) -> Choice:
    """The implementation for a model of MODEL_CLASS with weights of DTYPE; `auto`: the fastest that works."""
    if asked == "auto":
        return Choice(next((name for name in _FLASH if _obstacle(name, model_class, dtype) is None), _plain(model_class)))
    name = _NAMES.get(asked, asked)
    reason = _obstacle(name, model_class, dtype)
    return Choice(_plain(model_class), f"{asked} attention {reason}") if reason else Choice(name)


def say(choice: Choice) -> None:
    """Report on stderr if the implementation is not the requested one."""
    if choice.reason:
        print(f"attention: {choice.reason}; using {choice.implementation}", file=sys.stderr)


def _plain(model_class: Any) -> str:
    return "sdpa" if model_class._supports_sdpa else "eager"


def _obstacle(name: str, model_class: Any, dtype: str) -> str | None:
    """Why an implementation cannot run here; None if it can."""
    if name in _FLASH:
        return _flash_obstacle(name, model_class, dtype)
    if name in _SUPPORT and not getattr(model_class, _SUPPORT[name]):
        return f"is not available for {model_class.__name__} in transformers"
    if name == "flex_attention" and not _has_gpu():
        # torch 2.13: NotImplementedError: FlexAttention does not support backward on CPU.
        return "has no backward pass on the CPU"
    return None


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _flash_obstacle(name: str, model_class: Any, dtype: str) -> str | None:
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    if not model_class._supports_flash_attn:
        return f"is not available for {model_class.__name__} in transformers"
    if not _has_gpu():
        return "needs a GPU"
    if not (is_flash_attn_2_available() if name == "flash_attention_2" else is_flash_attn_3_available()):
        return "is not installed"
    return None if dtype in ("bfloat16", "float16") else f"needs 16-bit weights, not {dtype} (training.precision)"
