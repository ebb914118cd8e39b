"""The model card of what is published: the card of the folder, and what the workspace knows besides.

Results with intervals, data with licences where their sources tell them, other programs that load it, and how it is built again.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.plan.decide import Action
from engine.results.table import number

if TYPE_CHECKING:
    from engine.plan.project import Project
    from engine.publishing.source import Source

CARD = "README.md"
BASE, ADAPTER, MODELFILE, SERVE = "base.gguf", "adapter.gguf", "Modelfile", "serve.sh"
"""Files of exports."""
_OLLAMA = ("gemma", "gemma2", "llama", "mistral")
"""Types of models whose safetensors adapters Ollama reads: https://docs.ollama.com/import"""


def text(project: "Project", source: "Source", target: str | None, licences: Mapping[tuple[str, str], str]) -> str:
    """The card of SOURCE; TARGET is its name on the hub, LICENCES are those of hub repositories, by kind (`model`, `dataset`) and id."""
    own = source.folder / CARD
    before = own.read_text("utf-8").rstrip("\n") if own.is_file() else "\n".join(_head(source))
    sections = (
        _compared(project, source) if source.is_export else _results(project, source),
        _data(project, source, licences),
        _loading(source, target),
        _rebuilding(source),
    )
    return "\n\n".join([before, *("\n".join(lines) for section in sections if (lines := list(section)))]) + "\n"


def _head(source: "Source") -> Iterator[str]:
    """A card for what is no training's result."""
    library = ["library_name: transformers"] if source.is_model else []
    base = source.hub_base
    named = [f"base_model: {base[0]}"] if base else []
    yield from ("---", *library, *named, "tags:", "- adapterbuild", f"- {source.step.kind_name}", "---")
    yield f"# {source.step.name}\n"
    yield f"Made by adapterbuild, step `{source.step.kind_name}`. Content address: `{source.told.digest}`.\n"
    if source.is_export and source.spec:
        at = f"; its base is `{base[0]}` at revision `{base[1]}`" if base else ""
        yield f"The model of the experiment `{source.spec.name}`{at}.\n"
    yield "## How it was made\n"
    yield "```json"
    yield json.dumps(dict(source.told.recipe), indent=1, sort_keys=True, ensure_ascii=False)
    yield "```"


def _results(project: "Project", source: "Source") -> Iterator[str]:
    """The scores of its experiment's evaluation, if that was of this very result."""
    if source.spec is None:
        return
    name = source.spec.name
    folder = project.graph[f"evaluate-{name}"].artifact
    if any(project.plan()[step].action is not Action.KEEP for step in (source.step.name, f"predict-{name}", f"evaluate-{name}")):
        return
    scores: Mapping[str, Any] = project.store().metrics(f"{folder}/scores.json").get("models", {}).get(name, {})
    lines = [
        f"| {task} | {metric} | {number(found['value'])} | {_interval(found)} | {found.get('rows', '')} |"
        for task, metrics in scores.items()
        for metric, found in metrics.items()
    ]
    if lines:
        yield "## Results\n"
        yield "On held-out rows; intervals of 95 %.\n"
        yield from ("| task | metric | value | interval | rows |", "|---|---|---|---|---|", *lines)


def _compared(project: "Project", source: "Source") -> Iterator[str]:
    """What the step measured when it asked the export and the trained model the same rows."""
    if project.plan()[source.step.name].action is not Action.KEEP:
        return
    found = project.store().metrics(source.step.metrics)
    if "divergence" in found:
        yield "## Compared with the trained model\n"
        yield f"Both were asked {found['rows']} held-out rows, the export through {found['asked_through']}.\n"
        yield from ("| | measured | limit |", "|---|---|---|")
        yield f"| divergence of the next token (nats), largest | {found['divergence']:.3g} | at most {found['max_divergence']:g} |"
        yield f"| greedy answers that are equal | {found['equal_answers']:.0%} | at least {found['min_equal_answers']:.0%} |"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{number(found['low'])} to {number(found['high'])} ({found.get('interval', '')})" if found.get("low") is not None else ""


def _data(project: "Project", source: "Source", licences: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """The tasks that it was trained on, with their sources."""
    if source.spec is None or source.spec.experiment.mixture is None:
        return
    yield "## Data\n"
    yield from ("| task | source | teacher | training rows | licence |", "|---|---|---|---|---|")
    for task in source.spec.experiment.trained_tasks:
        described = source.spec.experiment.tasks[task]
        origin, teacher = described.source, described.teacher
        where = next((str(getattr(origin, key)) for key in ("id", "path", "generator", "pairs") if getattr(origin, key, None)), "")
        at = f" at `{revision}`" if (revision := getattr(origin, "revision", None)) else ""
        rows = project.store().metrics(f"metrics/split-{task}.json").get("train", "")
        licence = licences.get(("dataset", where), "not stated by the source")
        kind = teacher.kind if teacher else "in the rows"
        asked = f"{kind} `{model}`" if (model := getattr(teacher, "model", None)) else kind
        yield f"| {task} | {origin.kind} `{where}`{at} | {asked} | {rows} | {licence} |"
    base = next((name for kind, name in licences if kind == "model"), None)
    if base:
        yield f"\nThe base `{base}` has the licence `{licences['model', base]}`."


def _loading(source: "Source", target: str | None) -> Iterator[str]:
    """The commands of other programs that load it."""
    here, config = target or ".", source.adapter
    base = str(config.get("base_model_name_or_path") or "BASE")
    if config.get("peft_type") == "LORA" and not config.get("trainable_token_indices") and not config.get("modules_to_save"):
        yield "## With vLLM and Ollama\n"
        rank = f" --max-lora-rank {config['r']}" if isinstance(config.get("r"), int) and int(str(config["r"])) > 16 else ""
        yield from ("```sh", f"vllm serve {base} --enable-lora{rank} --lora-modules {source.name}={here}", "```\n")
        yield f"Ollama reads adapters of {', '.join(_OLLAMA)} models, with the same base as below it; in this folder:\n"
        yield from ("```sh", f"printf 'FROM {base}\\nADAPTER .\\n' > Modelfile", f"ollama create {source.name}", "```")
    elif (source.folder / SERVE).is_file():
        yield "## With vLLM\n"
        yield "It serves the model as `model`, and takes further options of vLLM:\n"
        yield from ("```sh", *_download(source, target), f"sh {SERVE}", "```")
    elif source.is_model:
        yield "## With vLLM\n"
        yield from ("```sh", f"vllm serve {here}", "```")
    elif files := sorted(path.name for path in source.folder.glob("*.gguf")):
        # Ollama needs the template and the end tokens of a Modelfile: without one, it would send prompts as the training did not.
        ollama = (source.folder / MODELFILE).is_file()
        yield f"## With llama.cpp{' and Ollama' if ollama else ''}\n"
        model, lora = (BASE, f" --lora {ADAPTER}") if ADAPTER in files else (files[0], "")
        create = [f"ollama create {source.name} -f {MODELFILE}"] if ollama else []
        yield from ("```sh", *_download(source, target), f"llama-server -m {model}{lora}", *create, "```")


def _download(source: "Source", target: str | None) -> list[str]:
    """The command before those that read files of a folder, which a repository of the hub is not."""
    return [f"hf download {target} --local-dir {source.name} && cd {source.name}"] if target else []


def _rebuilding(source: "Source") -> Iterator[str]:
    yield "## Build it again\n"
    commit = source.ran.git_commit if source.ran else None
    spec = source.spec.path if source.spec else (source.ran.spec or "").partition(":")[0] if source.ran else ""
    if commit:
        yield f"Spec `{spec}` at commit `{commit}` of its repository:\n"
    elif spec:
        yield f"Spec `{spec}`; the commit of the run is not known:\n"
    checkout = [f"git checkout {commit}"] if commit else []
    yield from ("```sh", *checkout, f"engine build {source.step.name}", f"engine verify {source.step.name}", "```\n")
    yield "`provenance.json` states what it was made of (an in-toto statement with an SLSA predicate), `SHA256SUMS` has the checksums of"
    yield f"all files (`sha256sum -c SHA256SUMS`). Identity of the step: `{source.told.identity}`."
