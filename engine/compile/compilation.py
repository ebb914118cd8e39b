"""What compiling gathers: steps by name, equal ones once, and problems; and how a section becomes a step's parameters."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from engine.checks.context_length import Context
from engine.core.errors import Location, Problem, UserError, did_you_mean
from engine.core.graph import Input, Step
from engine.core.part import Part
from engine.identity.text import canonical, recipe_of
from engine.spec.load import Spec
from stages import tokenize
from stages.tokenize.pairs import unfit

P = TypeVar("P", bound=Part)
OF = "@"
"""Between a step's name and that of the point of a sweep that asks for it, until sharing gives the step its own name; no name holds it."""
Locate = Callable[[tuple[str | int, ...]], Location | None]


@dataclass(frozen=True)
class Base:
    """A model to start from: its name, its weights, and the folder whose tokenizer belongs to it."""

    name: str
    weights: Input
    tokenizer: Mapping[str, Input]
    vocabulary: Input | None = None
    """The step that adds tokens of the spec's own to the tokenizer; the model lacks their embeddings until it is trained."""
    adapter: Input | None = None
    """The adapter that is trained further."""
    encoder_decoder: bool | None = None
    """Whether an encoder reads the prompt and a decoder writes the completion; None where its configuration is not here."""
    context: Context | None = None
    """How many tokens it has positions for; None where that is not known yet, or nothing bounds them."""

    def reads(self) -> dict[str, Input]:
        """What a step reads that opens the model: its weights, the tokens that are added to it, and the adapter on it."""
        more = {"vocabulary": self.vocabulary, "adapter": self.adapter}
        return {"model": self.weights} | {role: item for role, item in more.items() if item}


@dataclass
class Compilation:
    """Steps as they are found, by name; a name that comes again must mean the same step."""

    specs: Mapping[str, Spec]
    root: Path | None = None
    """The workspace, whose models' configurations are looked at; none given: nothing is read."""
    steps: dict[str, Step] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    tasks: dict[tuple[str, str], Step] = field(default_factory=dict)
    """The split step of each task, by the experiment's name and the task's."""
    told_apart: dict[str, tuple[str, Spec]] = field(default_factory=dict)
    """The steps that sharing names anew: each one's name as its spec would have it alone, and the spec."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The names that sharing will give them, once they are known."""

    def meant(self, name: str, known: Iterable[str]) -> str | None:
        """A hint for an experiment NAME that no spec has, of those that are KNOWN: a sweep is none, its points are."""
        points = [spec.name for spec in self.specs.values() if spec.stem == name]
        return f"'{name}' is a sweep; name one of its points, such as '{points[0]}'" if points else did_you_mean(name, known)

    def same(self, one: Input | None, other: Input | None) -> bool:
        """Whether two steps read the same, also where it is a step of a sweep that is not one step yet."""
        return self._settled(one) == self._settled(other)

    def _settled(self, item: Input | None) -> Input | None:
        if item is None or item.producer is None or item.producer not in self.renamed:
            return item
        return rewritten(item, self.steps[item.producer], replace(self.steps[item.producer], name=self.renamed[item.producer]))

    def add(self, step: Step, spec: Spec) -> Step:
        """STEP, which SPEC asks for, or the equal one that another spec asked for before."""
        step = replace(step, numerics=spec.experiment.resources.numerics)
        if (spec.point and spec.point.labels) or spec.takes_back:
            name = f"{step.name}{OF}{spec.name}"
            self.told_apart[name] = step.name, spec
            step = replace(step, name=name)
        return self.put(step)

    def put(self, step: Step) -> Step:
        """STEP under its own name."""
        known = self.steps.setdefault(step.name, step)
        if known is not step and (difference := _difference(known, step)):
            self.problems.append(_clash(known, step, difference))
        return known


def rewritten(item: Input, before: Step, after: Step) -> Input:
    """ITEM of the step BEFORE as an input of the same step under another name."""
    return replace(item, path=after.artifact + item.path.removeprefix(before.artifact), producer=after.name)


def narrow(parameters: type[P], section: Part, **more: Any) -> P:
    """The fields of a kind's PARAMETERS that a spec's SECTION holds, and MORE."""
    values = {name: getattr(section, name) for name in parameters.model_fields if name in type(section).model_fields}
    return parameters(**{**values, **more})


def locate_below(spec: Spec, section: tuple[str, ...], **elsewhere: tuple[str, ...]) -> Locate:
    """Where SPEC gives a field of a recipe: below SECTION, save for the fields that another section decides."""

    def locate(path: tuple[str | int, ...]) -> Location:
        if path and path[0] in elsewhere:
            return spec.where(*elsewhere[str(path[0])], *path[1:])
        return spec.where(*section, *path)

    return locate


def _difference(one: Step, other: Step) -> str | None:
    """The first field in which two steps of one name differ in recipe or wiring; None where they are the same step."""
    if one.kind is not other.kind:
        return "kind"
    if dict(one.inputs) != dict(other.inputs):
        return "inputs"
    if type(one.parameters) is type(other.parameters) and _text(one.parameters) == _text(other.parameters):
        return None
    a, b = recipe_of(one.parameters), recipe_of(other.parameters)
    return next((key for key in a if canonical(a[key]) != canonical(b.get(key))), None)


def _text(parameters: Part) -> str:
    """All that PARAMETERS hold, members of families as what they are: equal texts are equal recipes, and this is fast."""
    return parameters.model_dump_json(serialize_as_any=True)


def _clash(one: Step, other: Step, difference: str) -> Problem:
    hint = "give one of them another name, or set the value in a part that both extend"
    if one.kind is tokenize.KIND:
        hint = 'give one of them a name of its own, [tokenization] name = "...", or set the value in a part that both extend'
    return Problem(
        f"'{one.name}' means two different steps: they differ in {difference}; the other is asked for at {one.origin}", other.origin, hint
    )


def chat_template(spec: Spec) -> dict[str, Input]:
    """The file with the chat template, where the spec names one."""
    file = getattr(spec.experiment.tokenization.format, "template_file", None)
    return {"chat_template": Input(file, where=spec.where("tokenization", "format", "template_file"))} if file else {}


def encoder_decoder(spec: Spec, base: Base) -> bool:
    """Whether the rows of SPEC have inputs and labels of their own, as its model wants them; raises UserError where SPEC says otherwise."""
    section = spec.experiment.tokenization
    said, found = section.encoder_decoder, base.encoder_decoder
    if said is not None and found is not None and said != found:
        what = f"encoder_decoder is {str(said).lower()}, but model {base.name} is {'an encoder-decoder' if found else 'a causal'} model"
        raise UserError(what, spec.where("tokenization", "encoder_decoder"), "leave encoder_decoder out: the model's configuration says it")
    decided = bool(said) if found is None else found
    if wrong := unfit(decided, section.mask.kind, section.over_length, section.max_target_length):
        field, what = wrong
        hint = None if decided or found is not None else "if the model is one, set encoder_decoder = true"
        raise UserError(what, spec.where("tokenization", field), hint)
    return decided
