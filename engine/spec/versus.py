"""The section `[evaluation.versus]`: a chat model that says which of two models' answers is better."""

from engine.core.part import Name, Part, recipe
from stages.generate.prompts import TemplateFile
from stages.generate.teachers.chat import Chat

_CUT = '{{% if {0}_finish_reason == "length" %}} [it never ended, and was cut off here]{{% endif %}}'
PROMPT = f"""# Question
{{{{ prompt }}}}

{{% if reference %}}# A good answer
{{{{ references | join("\\n\\n# Another good answer\\n") }}}}

{{% endif %}}# The first answer
{{{{ first }}}}{_CUT.format("first")}

# The second answer
{{{{ second }}}}{_CUT.format("second")}
"""

SYSTEM = """You compare two answers to a question. Say which one is better, "first" or "second", or "tie" if neither is. \
The order in which they stand means nothing. Say why in one or two sentences first. \
Answer with JSON alone: {"reason": "...", "better": "first"}"""

_SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"type": "string", "enum": ("first", "second", "tie")}},
    "required": ("reason", "better"),
    "additionalProperties": False,
}


class Versus(Part):
    """A chat model that compares the answers of this model with those of each model in `compare`, row by row, in both orders."""

    teacher: Chat = recipe(
        description="The chat model that compares, with its rate limits and budget; identical requests are paid for once."
    )
    prompt: str | TemplateFile = recipe(
        PROMPT,
        "Jinja template of the request; variables: prompt, reference, references (a list), first, second, first_finish_reason, "
        "second_finish_reason and `fields` (the columns in the task's `carry`).",
    )
    system: str | TemplateFile = recipe(SYSTEM, "Jinja template of the system prompt; it must ask for the JSON that the default asks for.")
    name: Name | None = recipe(None, "Suffix of the names of its steps; needed if a workspace compares in several ways.")

    def requested(self) -> Chat:
        """The teacher, with the JSON schema of the verdict that it must return."""
        return self.teacher.model_copy(update={"json_schema": _SCHEMA})
