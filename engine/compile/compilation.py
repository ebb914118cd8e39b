"""What all sections share: the steps of a compilation, models before and after a training, and the conversion of sections to parameters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.core.errors import Location, Problem, UserError, did_you_mean
from engine.core.graph import Input, Step
from engine.core.part import Part
from engine.identity.text import canonical, recipe_of
from stages.tokenize.pairs import unfit
from stages.train.methods import Method

if TYPE_CHECKING:
    from engine.checks.context_length import Context
    from engine.spec.sections import Spec

P = TypeVar("P", bound=Part)
OF = "@"
"""Separates a step's name from the name of its sweep point, until sharing assigns final names; does not occur in names."""
Locate = Callable[[tuple[str | int, ...]], Location | None]


@dataclass(frozen=True)
class Base:
    """A model that a training starts from: its name, its weights, and its tokenizer."""

    name: str
    weights: Input
    tokenizer: Mapping[str, Input]
    """The files of the tokenizer, by file name."""
    vocabulary: Input | None = None
    """The output of the step that adds the spec's special tokens; the base has no embeddings for them."""
    adapter: Input | None = None
    """The adapter that is already on it."""
    adapter_name: str | None = None
    """The name of an adapter that no experiment trained."""
    method: Method | None = None
    """The method that trained that adapter; None if it is not known yet."""
    encoder_decoder: bool | None = None
    """Whether it is an encoder-decoder model; None if its configuration is not available yet."""
    context: "Context | None" = None
    """Its context length; None if it is unlimited or not known yet."""
    config: Mapping[str, Any] | None = None
    """Its config.json; None if it is not available yet."""
    variant: str | None = None
    """How its configuration differs from that of the model NAME."""

    def named(self, name: str) -> str:
        """NAME, which stands for the model itself, with its variant and the adapter that no experiment trained."""
        return "-".join(part for part in (name, self.variant, self.adapter_name) if part)

    def reads(self) -> dict[str, Input]:
        """The inputs of a step that loads the model, by role: weights, added tokens, and adapter."""
        more = {"vocabulary": self.vocabulary, "adapter": self.adapter}
        return {"model": self.weights} | {role: item for role, item in more.items() if item}


@dataclass(frozen=True)
class Subject:
    """A model under evaluation: its experiment, the base that it starts from, and its training, if any."""

    spec: "Spec"
    base: Base
    trained: Step | None

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.spec.name

    @property
    def stem(self) -> str:
        """The name used in step names: the same for all points of a sweep, so that equal steps are merged."""
        return self.spec.stem

    @property
    def adapter(self) -> Input | None:
        """The adapter on the base; None if the model is a whole one."""
        if self.trained is None:
            return self.base.adapter
        method = self.spec.experiment.method
        return self.trained.output() if method and method.makes_adapter else None

    @property
    def method(self) -> Method | None:
        """The method that made the adapter or the model; None if it is not known yet, or if neither was trained here."""
        return self.spec.experiment.method if self.trained else self.base.method

    def reads(self) -> dict[str, Input]:
        """The inputs of a step that loads the model, by role: weights, and adapter if there is one."""
        if adapter := self.adapter:
            return {**self.base.reads(), "adapter": adapter}
        return {"model": self.trained.output()} if self.trained else self.base.reads()


TaskOf = Callable[["Spec", str], Step]
"""The split step of a spec's task."""


EVERY = "*"
"""Among the names that a spec refers to: it has looked at all specs; no name of an experiment."""


class Specs(Mapping[str, "Spec"]):
    """Specs by the names of their experiments; notes which names are looked up, those of specs that are missing too."""

    def __init__(self, specs: "Iterable[Spec]") -> None:
        self._by_name = {spec.name: spec for spec in specs}
        self.all = tuple(self._by_name.values())
        self.looked_up: set[str] = set()

    def __getitem__(self, name: str) -> "Spec":
        self.looked_up.add(name)
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        self.looked_up.add(EVERY)
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


@dataclass(frozen=True)
class Contribution:
    """What compiling one spec added: its steps, in order, also those that other specs have too, and the experiments that it looked up."""

    steps: tuple[str, ...]
    looked_up: frozenset[str]


@dataclass
class Compilation:
    """Collects steps by name; steps with the same name must be equal."""

    specs: Specs
    root: Path | None = None
    """The workspace, to read the configurations of local models; None: none is read."""
    whole: bool = True
    """Whether SPECS are all of the workspace, so that a reference to another experiment is a mistake."""
    steps: dict[str, Step] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    tasks: dict[tuple[str, str], Step] = field(default_factory=dict)
    """The split step of each task of the specs that are being compiled, by names of experiment and task."""
    per_point: "dict[str, tuple[str, Spec]]" = field(default_factory=dict)
    """The steps that sharing renames: for each, its name without a sweep, and its spec."""
    pairing: list[str] = field(default_factory=list)
    """The experiments whose pairs are being compiled, from the outermost on."""
    taught: list[str] = field(default_factory=list)
    """The experiments whose teachers are being compiled, from the outermost on."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The final names of these steps, once known."""
    contributions: dict[str, Contribution] = field(default_factory=dict)
    """By the name of the experiment."""
    _put: dict[str, None] = field(default_factory=dict)

    def contribute(self, spec: "Spec", add: Callable[[], object]) -> None:
        """Note what ADD, which compiles SPEC, adds and looks up; that depends on no spec but SPEC and those that it looks up."""
        self.tasks.clear()
        self._put.clear()
        self.specs.looked_up.clear()
        try:
            add()
        finally:
            self.contributions[spec.name] = Contribution(tuple(self._put), frozenset(self.specs.looked_up))

    def meant(self, name: str, known: Iterable[str]) -> str | None:
        """A hint for an unknown experiment NAME, from the KNOWN ones; for the name of a sweep, the hint names a point."""
        points = [spec.name for spec in self.specs.values() if spec.stem == name]
        return f"'{name}' is a sweep; name one of its points, such as '{points[0]}'" if points else did_you_mean(name, known)

    def same(self, one: Input | None, other: Input | None) -> bool:
        """Whether two inputs are the same, even if they come from steps of a sweep that are not yet merged."""
        return self._settled(one) == self._settled(other)

    def _settled(self, item: Input | None) -> Input | None:
        if item is None or item.producer is None or item.producer not in self.renamed:
            return item
        return rewritten(item, self.steps[item.producer], replace(self.steps[item.producer], name=self.renamed[item.producer]))

    def add(self, step: Step, spec: "Spec") -> Step:
        """Add STEP of SPEC; returns the equal step if there is one already."""
        step = replace(step, numerics=spec.experiment.resources.numerics)
        if (spec.point and spec.point.labels) or spec.takes_back:
            name = f"{step.name}{OF}{spec.name}"
            self.per_point[name] = step.name, spec
            step = replace(step, name=name)
        return self.put(step)

    def put(self, step: Step) -> Step:
        """Add STEP under its name; a different step with that name is a problem. Returns the step with this name."""
        self._put[step.name] = None
        known = self.steps.setdefault(step.name, step)
        if known is not step and (difference := _difference(known, step)):
            self.problems.append(_clash(known, step, difference))
        return known


def rewritten(item: Input, before: Step, after: Step) -> Input:
    """ITEM, an output of step BEFORE, as an output of AFTER, the same step under another name."""
    inside = item.path.removeprefix(before.artifact)
    return replace(item, path=after.metrics if item.path == before.metrics else after.artifact + inside, producer=after.name)


def narrow(parameters: type[P], section: Part, **more: Any) -> P:
    """A kind's PARAMETERS with the values of the fields that they share with SECTION, and MORE."""
    values = {name: getattr(section, name) for name in parameters.model_fields if name in type(section).model_fields}
    return parameters(**{**values, **more})


def locate_below(spec: "Spec", section: tuple[str, ...], **elsewhere: tuple[str, ...]) -> Locate:
    """A function from the path of a parameter to its location in SPEC: below SECTION, or ELSEWHERE for the fields listed there."""

    def locate(path: tuple[str | int, ...]) -> Location:
        if path and path[0] in elsewhere:
            return spec.where(*elsewhere[str(path[0])], *path[1:])
        return spec.where(*section, *path)

    return locate


def _difference(one: Step, other: Step) -> str | None:
    """The first difference in recipe or wiring between two steps with the same name; None if they are equal."""
    if one.kind is not other.kind:
        return "kind"
    if dict(one.inputs) != dict(other.inputs):
        return "inputs"
    if type(one.parameters) is type(other.parameters) and _text(one.parameters) == _text(other.parameters):
        return None
    a, b = recipe_of(one.parameters), recipe_of(other.parameters)
    return next((key for key in a if canonical(a[key]) != canonical(b.get(key))), None)


def _text(parameters: Part) -> str:
    """PARAMETERS as JSON, including the fields of family members: a fast test, since equal texts mean equal recipes."""
    return parameters.model_dump_json(serialize_as_any=True)


_MODEL = 'set model.name = "..." in one of them'
_NAMED_BY = {
    **dict.fromkeys(("initialize", "dequantise", "fetch", "rescale"), _MODEL),
    **dict.fromkeys(("generate", "split"), "rename the task of one of them: [tasks.NAME]"),
    "pair": "rename one of them: [pairs.NAME]",
    "tokenize": 'set tokenization.name = "..." in one of them',
}
"""What names the steps of a kind, where that is not the experiment, whose name is unique: what to change if two have one name."""


def _clash(one: Step, other: Step, difference: str) -> Problem:
    way = _NAMED_BY.get(one.kind.name, "rename one of them")
    hint = f"{way}, or set the value in a part that both specs extend"
    return Problem(
        f"two different steps are named '{one.name}': they differ in {difference}; the other is defined at {one.origin}", other.origin, hint
    )


def chat_template(spec: "Spec") -> dict[str, Input]:
    """The file with the chat template as an input by role; empty if the spec names none."""
    file = getattr(spec.experiment.tokenization.format, "template_file", None)
    return {"chat_template": Input(file, where=spec.where("tokenization", "format", "template_file"))} if file else {}


def encoder_decoder(spec: "Spec", base: Base) -> bool:
    """Whether SPEC is tokenized for an encoder-decoder model; raises UserError if SPEC contradicts the model or is inconsistent."""
    section = spec.experiment.tokenization
    given, found = section.encoder_decoder, base.encoder_decoder
    if given is not None and found is not None and given != found:
        what = f"encoder_decoder is {str(given).lower()}, but model {base.name} is {'an encoder-decoder' if found else 'a causal'} model"
        raise UserError(what, spec.where("tokenization", "encoder_decoder"), "remove encoder_decoder: the model's configuration decides")
    decided = bool(given) if found is None else found
    if wrong := unfit(decided, section.mask.kind, section.over_length, section.max_target_length):
        field, what = wrong
        hint = None if decided or found is not None else "if it is an encoder-decoder model, set encoder_decoder = true"
        raise UserError(what, spec.where("tokenization", field), hint)
    return decided
