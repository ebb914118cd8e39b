"""A chat template (Jinja, as in transformers): the tokenizer's, or one from the spec."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.errors import UserError
from engine.core.part import Part, recipe
from stages.rows.template_files import read_template

if TYPE_CHECKING:
    from pathlib import Path

    from stages.chat.turn_splitting import ChatRenderer
    from stages.tokens.encoder import Encoder


class Chat(Part):
    """A chat template; a row with prompt and completion is a conversation of two messages."""

    kind: Literal["chat"] = "chat"
    template: str | None = recipe(None, "Template text; if neither this nor template_file is set, the tokenizer's template.")
    template_file: str | None = recipe(None, "Template file, relative to the workspace.", min_length=1)
    date: str | None = recipe(
        None, "The date that `strftime_now` returns, for templates that print today's date.", pattern=r"^\d{4}-\d\d-\d\d$"
    )
    variables: dict[str, str | int | bool] = recipe({}, "Template variables, such as `enable_thinking`.")
    environment: ClassVar[tuple[str, ...]] = ("jinja2",)

    @model_validator(mode="after")
    def _one_template(self) -> Self:
        if self.template is not None and self.template_file is not None:
            raise PydanticCustomError("two_templates", "give template or template_file, not both", {"at": ("template_file",)})
        return self

    def renderer(self, encoder: "Encoder", template: "Path | None" = None) -> "ChatRenderer":
        """The renderer of rows; TEMPLATE is the spec's template file, if any; raises UserError if there is no template."""
        from stages.chat.turn_splitting import ChatRenderer

        if template is not None:
            return ChatRenderer(self, encoder, read_template(template), str(template))
        if self.template is not None:
            return ChatRenderer(self, encoder, self.template, "tokenization.format.template")
        if encoder.template is None:
            hint = "set tokenization.format.template_file; or name chat_template.jinja in model.tokenizer_files, if the model has one"
            raise UserError("this tokenizer has no chat template", hint=hint)
        return ChatRenderer(self, encoder, encoder.template, "the tokenizer's chat template")
