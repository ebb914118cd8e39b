"""The step that merges adapters into their base, and checks whether they can be merged."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from engine.compile.compilation import Compilation, Subject, TaskOf, chat_template, encoder_decoder, locate_below, narrow
from engine.core.errors import Location, Problem, UserError
from engine.core.graph import Step
from stages import merge
from stages.train.methods import Method
from stages.train.methods.base import LowRank

if TYPE_CHECKING:
    from engine.spec.sections import Spec


def add_merge(
    c: Compilation, subject: Subject, task_of: TaskOf, subject_of: Callable[[str], Subject], section: merge.Merging | None = None
) -> Step | None:
    """Add the step that merges adapters into the weights of SUBJECT's base, by SECTION (default: the spec's `[merge]`).

    None if there is no section, or if it has problems. Raises UserError for an unknown experiment.
    """
    spec = subject.spec
    section = section or spec.experiment.merge
    if section is None:
        return None
    adapters = section.adapters or {subject.stem: 1.0}
    _refuse_unknown(c, spec)
    merged = {name: subject if name in (subject.name, subject.stem) else subject_of(name) for name in sorted(adapters)}
    if problems := _problems(c, subject, section, list(merged.values())):
        c.problems += problems
        return None
    first = next(iter(merged.values()))
    experiment = spec.experiment
    parameters = narrow(
        merge.Parameters,
        section,
        adapters=adapters,
        quantised=first.method.quantisation if first.method else None,
        format=experiment.tokenization.format,
        boundary=experiment.tokenization.boundary,
        encoder_decoder=encoder_decoder(spec, subject.base),
        threads=experiment.resources.threads,
    )
    reads = {role: item for role, item in first.base.reads().items() if role != "adapter"}
    reads |= {f"adapter/{name}": adapter for name, other in merged.items() if (adapter := other.adapter)}
    tasks = experiment.mixture.tasks if experiment.mixture else experiment.evaluated_tasks
    reads |= {f"rows/{task}": task_of(spec, task).output() for task in tasks} | chat_template(spec)
    moved = {name: ("tokenization", name) for name in ("format", "boundary", "encoder_decoder")}
    locate = locate_below(spec, ("merge",), quantised=("training", "method"), threads=("resources", "threads"), **moved)
    description = f"{first.base.name} with {', '.join(merged)} merged into its weights."
    return c.add(Step(f"merge-{subject.stem}", merge.KIND, parameters, reads, description, spec.where("merge"), locate), spec)


def _where(spec: "Spec", name: str) -> Location:
    """The location of adapter NAME in SPEC: its line, or `[merge]` if no adapters are listed."""
    section = spec.experiment.merge
    adapters = section.adapters if section else {}
    return spec.where("merge", "adapters", name if name in adapters else spec.stem) if adapters else spec.where("merge")


def _refuse_unknown(c: Compilation, spec: "Spec") -> None:
    section = spec.experiment.merge
    unknown = [name for name in (section.adapters if section else ()) if name not in c.specs and name != spec.stem]
    if unknown:
        what = "no experiment '{}' in this workspace"
        raise UserError([Problem(what.format(name), _where(spec, name), c.meant(name, c.specs)) for name in unknown])


def _problems(c: Compilation, subject: Subject, section: merge.Merging, merged: list[Subject]) -> list[Problem]:
    """Why adapters cannot be merged; empty if they can."""
    found = [problem for other in merged for problem in _unmergeable(c, subject, other)]
    if not found and len(merged) > 1:
        found = [problem for other in merged for problem in _uncombinable(subject.spec, other)]
        found = found or list(_unlike(subject.spec, section, merged))
    return found


def _unmergeable(c: Compilation, subject: Subject, other: Subject) -> Iterator[Problem]:
    """Why the adapter of OTHER cannot be merged into the base of SUBJECT."""
    where, method = _where(subject.spec, other.name), other.method
    if other.adapter is None:
        how = f"is trained with method {method.kind}, which" if other.trained and method else "trains nothing, and its model"
        what = f"'{other.name}' {how} {'produces' if other.trained else 'has'} no adapter to merge"
        yield Problem(what, where, "remove [merge], or list experiments that train adapters in merge.adapters")
    elif method and method.virtual_tokens:
        what = f"'{other.name}' is trained with {method.kind}, which adds virtual tokens and cannot be merged into weights"
        yield Problem(what, where, "only adapters of lora, qlora and ia3 can be merged")
    elif not c.same(other.base.weights, subject.base.weights):
        what = f"'{other.name}' is an adapter on {other.base.name}, but '{subject.name}' starts from {subject.base.name}"
        if other.base.name == subject.base.name:
            what = f"'{other.name}' is an adapter on different weights than those that '{subject.name}' starts from"
        yield Problem(what, where, "an adapter can be merged only into the model on which it was trained")


def _uncombinable(spec: "Spec", other: Subject) -> Iterator[Problem]:
    """Why the adapter of OTHER cannot be combined with others: it contains more than low-rank updates."""
    method = other.method
    where = _where(spec, other.name)
    if method is None:
        return
    if not isinstance(method, LowRank):
        yield Problem(f"'{other.name}' is trained with {method.kind}, which cannot be combined with others", where, "use lora or qlora")
        return
    more = {"use_dora": method.use_dora, "modules_to_save": method.modules_to_save, "bias": method.bias != "none"}
    trained = [f"method.{name}" for name, given in more.items() if given]
    trained += ["tokenization.special_tokens"] if other.base.vocabulary else []
    if trained:
        what = f"'{other.name}' trains more than low-rank updates ({', '.join(trained)}), which cannot be combined with others"
        yield Problem(what, where, "merge it alone, or train it without these")


def _unlike(spec: "Spec", section: merge.Merging, merged: list[Subject]) -> Iterator[Problem]:
    """Differences between adapters that prevent combining them."""
    first, *others = merged
    for other in others:
        where = _where(spec, other.name)
        if first.method is None or other.method is None:
            continue
        if other.method.quantisation != first.method.quantisation:
            what = f"the bases of '{first.name}' and '{other.name}' are quantised differently"
            yield Problem(what, where, "train both with qlora and the same bits, or both with lora")
        ranks = [_rank(first.method), _rank(other.method)]
        if section.combination.equal_ranks and ranks[0] != ranks[1]:
            what = f"{section.combination.kind} needs adapters of the same rank: '{first.name}' has {ranks[0]}, '{other.name}' {ranks[1]}"
            yield Problem(what, where, 'use combination "linear" or "svd", or train both with the same r')


def _rank(method: Method) -> int:
    """The rank of the adapter that METHOD saves."""
    saved = method.as_saved()
    assert isinstance(saved, LowRank)
    return saved.r
