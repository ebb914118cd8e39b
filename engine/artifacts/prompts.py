"""How the rows were asked on which a model was trained: the part of its card by which others can ask it alike."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.core.errors import UserError
from engine.identity.provenance import Provenance
from engine.plan.decide import Action
from engine.results.table import digest_of
from stages.generate.prompts import TemplateFile
from stages.rows.template_files import read_template

if TYPE_CHECKING:
    from engine.plan.project import Project
    from engine.spec.sections import Spec


def prompts(project: "Project", told: Provenance) -> Sequence[str]:
    """The lines of the card of the training TOLD on the templates of its tasks; none unless it is what its spec now describes."""
    store = project.store()
    try:
        spec = next((spec for spec in project.specs if f"train-{spec.name}" == told.step), None)
        if spec is None or digest_of(project.graph[told.step], store) != told.digest:
            return ()
        if project.plan(store=store)[told.step].action is not Action.KEEP:
            return ()
    except UserError:
        return ()  # mistakes in specs of now are no reason not to fetch what was trained before
    found = [line for task in spec.experiment.trained_tasks for line in _task(project, spec, task)]
    return ["## Prompts", "", "Jinja templates over the columns of a row; the model answers what they render.", "", *found] if found else ()


def _task(project: "Project", spec: "Spec", name: str) -> Iterator[str]:
    task = spec.experiment.tasks[name]
    if task.teacher is None:
        return  # conversations are asked as they are
    yield f"### {name}"
    yield ""
    templates = [("System prompt", task.system)] if task.system else []
    several = f", one of {len(task.prompts)}" if len(task.prompts) > 1 else ""
    for called, given in [*templates, *((f"Prompt{several}", one) for one in task.prompts)]:
        text = read_template(project.root / given.file, given.file) if isinstance(given, TemplateFile) else given
        # Longer than any fence in the template.
        fence = "`" * max(3, 1 + max((len(run) for run in text.split("\n") if set(run) == {"`"}), default=0))
        yield f"{called}:"
        yield ""
        yield from (f"{fence}jinja", text.removesuffix("\n"), fence, "")
    if task.few_shot and task.few_shot.shown_to == "model":
        yield f"{task.few_shot.count} examples precede each prompt, each followed by its answer."
        yield ""
    if task.answer_prefix:
        yield f"An answer begins with {task.answer_prefix!r}; it has at most {task.max_new_tokens} tokens."
        yield ""
