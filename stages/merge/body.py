"""Body of merge: merges adapters into the weights, and compares the written model with the adapters on their base."""

from typing import Any

from engine.core.errors import UserError
from stages.chat.questions import Policies, Questions
from stages.merge import Parameters
from stages.merge.probing import Probe, difference, logits, read_probes
from stages.models.folders import (
    count_parameters,
    load_model,
    load_tokenizer,
    longest_sequence,
    prepare_process,
    save_model,
)
from stages.models.serving import Serving
from stages.process.job import Job, Metrics

# Both models get the same tokens, so policies that leave rows out do not matter here.
_AS_TRAINED = Policies(unrendered="allow")

DIGITS = 3
"""Significant digits of differences; further digits are noise."""


def run(parameters: Parameters, job: Job) -> Metrics:
    """Write the merged model as a `from_pretrained` folder; raises UserError if its logits differ from the adapters'."""
    prepare_process(parameters.threads)
    from stages.merge.combining import open_base

    tokenizer_folder = job.inputs.get("vocabulary", job.inputs["model"])
    encoder = load_tokenizer(tokenizer_folder).encoder
    asking = Questions(
        parameters.format, encoder, job.inputs.get("chat_template"), parameters.boundary, parameters.encoder_decoder, policies=_AS_TRAINED
    )
    probes = read_probes([path for _, path in sorted(job.group("rows").items())], parameters.check_rows, asking)
    adapters = [folder for _, folder in sorted(job.group("adapter").items())]
    serving = Serving.of(asking.taught, job.inputs["model"], tokenizer_folder, adapters)
    model = open_base(parameters, job)
    longest = longest_sequence(model.config)
    wanted = _merge(model, parameters, job, probes, longest)
    serving.write(job.output)
    # The check loads the written model, not the one in memory.
    written = load_model(job.output)
    found = logits(written, probes, longest)
    apart = difference(found, wanted)
    if not apart <= parameters.tolerance:
        what = f"the logits of the merged model differ from those of the adapters on their base by {apart:.3g} of the largest logit"
        raise UserError(
            f"{what}, more than merge.tolerance = {parameters.tolerance:g}", hint="increase merge.tolerance, or merge fewer adapters"
        )
    metrics = {
        "parameters": count_parameters(written),
        "shards": len(list(job.output.glob("*.safetensors"))),
        "rows": len(probes),
        "logit_difference": _rounded(apart),
        "tolerance": parameters.tolerance,
    }
    return metrics | _to_training(parameters, job, probes, found, longest)


def _merge(model: Any, parameters: Parameters, job: Job, probes: list[Probe], longest: int | None) -> Any:
    """Write MODEL with the adapters merged into it; returns the logits before merging."""
    from stages.merge.combining import adapt

    adapted = adapt(model, parameters, job.group("adapter"))
    wanted = logits(adapted, probes, longest)
    merged = adapted.merge_and_unload(adapter_names=list(adapted.active_adapters))
    save_model(merged, job.output, parameters.max_shard_size)
    return wanted


def _to_training(parameters: Parameters, job: Job, probes: list[Probe], found: Any, longest: int | None) -> Metrics:
    """Differences between the merged model and the adapters on the quantised base of training; reported, not enforced."""
    from stages.merge.combining import adapt, open_quantised

    if parameters.quantised is None:
        return {}
    trained = adapt(open_quantised(parameters, job), parameters, job.group("adapter"))
    return {"difference_to_quantised": _rounded(difference(found, logits(trained, probes, longest)))}


def _rounded(share: float) -> float:
    return float(f"{share:.{DIGITS}g}")
