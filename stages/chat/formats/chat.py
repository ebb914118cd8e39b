"""A chat template (Jinja, as transformers has it): the tokenizer's own, or one from the spec."""

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
    """A chat template; a row of prompt and completion is a chat of two messages."""

    kind: Literal["chat"] = "chat"
    template: str | None = recipe(None, "The template itself; neither this nor a file given: the tokenizer's own.")
    template_file: str | None = recipe(None, "A file with the template, relative to the workspace.", min_length=1)
    date: str | None = recipe(None, "What the template takes for today, for templates that ask.", pattern=r"^\d{4}-\d\d-\d\d$")
    variables: dict[str, str | int | bool] = recipe({}, "Further variables of the template, such as `enable_thinking`.")
    environment: ClassVar[tuple[str, ...]] = ("jinja2",)

    @model_validator(mode="after")
    def _one_template(self) -> Self:
        if self.template is not None and self.template_file is not None:
            raise PydanticCustomError("two_templates", "give template or template_file, not both", {"at": ("template_file",)})
        return self

    def renderer(self, encoder: "Encoder", template: "Path | None" = None) -> "ChatRenderer":
        """What renders rows; TEMPLATE is the file that the spec names, where it names one; raises UserError where there is no template."""
        from stages.chat.turn_splitting import ChatRenderer

        if template is not None:
            return ChatRenderer(self, encoder, read_template(template), str(template))
        if self.template is not None:
            return ChatRenderer(self, encoder, self.template, "tokenization.format.template")
        if encoder.template is None:
            hint = "give one: tokenization.format.template_file; or name chat_template.jinja in model.tokenizer_files, if the model has one"
            raise UserError("this tokenizer has no chat template", hint=hint)
        return ChatRenderer(self, encoder, encoder.template, "the tokenizer's chat template")
