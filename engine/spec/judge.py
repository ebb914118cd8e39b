"""The section `[evaluation.judge]`: a chat model that scores predictions."""

from typing import Any, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from engine.core.part import Name, Part, recipe
from stages.generate.prompts import TemplateFile
from stages.generate.teachers.chat import Chat

PROMPT = """# Question
{{ prompt }}

{% if reference %}# A good answer
{{ references | join("\n\n# Another good answer\n") }}

{% endif %}# The answer to judge
{{ prediction }}{% if finish_reason == "length" %} [it never ended, and was cut off here]{% endif %}
"""

_SYSTEM = """You judge answers to questions. Give the answer {names}: {each} whole number from {lowest} (worst) to {highest} (best). \
Say why in one or two sentences first. Answer with JSON alone: {form}"""

_MOST_SCORES = 101


class Judge(Part):
    """A chat model that scores every prediction of this model and of the models that it is compared with."""

    teacher: Chat = recipe(description="The chat model that judges, with its rate limits and budget; identical requests are paid for once.")
    prompt: str | TemplateFile = recipe(
        PROMPT,
        "Jinja template of the request; variables: prompt, reference, references (a list), prediction, finish_reason and `fields` (the"
        " columns in the task's `carry`).",
    )
    system: str | TemplateFile | None = recipe(None, "Jinja template of the system prompt; default: asks for the scores as JSON.")
    scores: tuple[Name, ...] = recipe(("score",), "The names of the scores given to each prediction.", min_length=1)
    lowest: int = recipe(1, "The worst score.")
    highest: int = recipe(5, "The best score.")
    name: Name | None = recipe(None, "Suffix of the names of the judge's steps; needed if a workspace has several judges.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.lowest < self.highest < self.lowest + _MOST_SCORES:
            raise _problem("highest", f"highest must be greater than lowest, by at most {_MOST_SCORES - 1}")
        if len(set(self.scores)) != len(self.scores) or "reason" in self.scores:
            raise _problem("scores", "names of scores must be unique, and 'reason' is reserved for the judge's explanation")
        for field in ("json_schema", "json_field"):
            if getattr(self.teacher, field) is not None:
                raise _problem("teacher", f"{field} cannot be set for a judge: scores, lowest and highest define the form of its answer")
        return self

    def requested(self) -> Chat:
        """The teacher, with the JSON schema of the scores that it must return."""
        return self.teacher.model_copy(update={"json_schema": self._schema()})

    def instruction(self) -> str | TemplateFile:
        """The system prompt: the user's, or the default one that asks for the scores as JSON."""
        if self.system is not None:
            return self.system
        form = ", ".join(['"reason": "..."', *(f'"{name}": {self.lowest}' for name in self.scores)])
        names = f"the scores {', '.join(self.scores)}" if len(self.scores) > 1 else f"a {self.scores[0]}"
        each = "each a" if len(self.scores) > 1 else "a"
        return _SYSTEM.format(names=names, each=each, lowest=self.lowest, highest=self.highest, form="{" + form + "}")

    def _schema(self) -> dict[str, Any]:
        """The JSON schema of the judge's answer; the reason comes first, so that the scores follow from it."""
        score = {"type": "integer", "enum": tuple(range(self.lowest, self.highest + 1))}
        properties = {"reason": {"type": "string"}} | {name: dict(score) for name in self.scores}
        return {"type": "object", "properties": properties, "required": tuple(properties), "additionalProperties": False}


def _problem(field: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("judge", "{text}", {"text": text, "at": (field,)})
