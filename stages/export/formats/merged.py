"""Whole weights in a folder that `from_pretrained` reads."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from engine.core.part import recipe
from stages.export.formats.base import Exporting

if TYPE_CHECKING:
    from stages.export.material import Material
    from stages.export.runtimes.base import Runtime


class Merged(Exporting):
    """Merged weights as a `from_pretrained` folder, in one of three precisions or in 4 bits of bitsandbytes."""

    kind: Literal["merged"] = "merged"
    dtype: Literal["float32", "bfloat16", "float16", "nf4"] = recipe(
        "bfloat16", "Type of the weights; `nf4`: linear layers in 4-bit NormalFloat of bitsandbytes, the rest in bfloat16."
    )
    max_shard_size: str = recipe("5GB", "Maximum size of a weights file.", pattern=r"^[1-9][0-9]*(KB|MB|GB)$")
    environment: ClassVar[tuple[str, ...]] = ("bitsandbytes",)

    @property
    def label(self) -> str:
        """Such as `merged-bfloat16`."""
        return f"merged-{self.dtype}"

    @property
    def precision(self) -> str:
        """The type of the weights."""
        return self.dtype

    def exported(self, material: "Material") -> "AbstractContextManager[Runtime]":
        """Write the folder, and load it with transformers."""
        from stages.export.writers.merged import exported

        return exported(material, self.dtype, self.max_shard_size)
