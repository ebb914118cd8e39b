"""The interface of scalings: the values that transformers reads."""

from typing import Any, ClassVar

from engine.core.part import Part, recipe


class RopeScaling(Part):
    """A scaling of rotary positions."""

    kind: str
    factor: float = recipe(description="Length of the new context, as a multiple of the original one.", ge=1)
    states_original: ClassVar[bool] = False
    """Whether the configuration states the original context length; `max_position_embeddings` is then the new one."""

    def values(self) -> dict[str, Any]:
        """The values for `rope_parameters` in config.json, except the original length and the model's own."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in ("kind", "original_max_position_embeddings")}
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items() if value is not None}
        return {"rope_type": self.kind, **given}


class WithOriginal(RopeScaling):
    """A scaling that depends on the length with which the model was trained."""

    original_max_position_embeddings: int | None = recipe(None, "Context length before scaling; if unset, the model's.", gt=0)
    states_original: ClassVar[bool] = True
