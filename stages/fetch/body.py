"""Body of fetch: downloads a model's configuration, tokenizer and safetensors weights; never code or pickles."""

import shutil

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from engine.core.errors import UserError
from stages.fetch import Parameters
from stages.process.job import Job, Metrics

# No *.py and no *.bin: remote code and pickles are never fetched, so they can never run.
PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def run(parameters: Parameters, job: Job) -> Metrics:
    """Download the revision's files into the output; an interrupted download resumes from the scratch folder."""
    folder = job.scratch / "snapshot"
    try:
        # The download would try for half a minute to reach a hub that is not there.
        HfApi().model_info(parameters.id, revision=parameters.revision, timeout=20)
        snapshot_download(parameters.id, revision=parameters.revision, allow_patterns=PATTERNS, local_dir=folder)
    except GatedRepoError:
        raise UserError(f"{parameters.id} is gated", hint="accept its terms on the hub, and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise UserError(f"{parameters.id} has no revision {parameters.revision}", hint="give the full commit hash") from None
    except RepositoryNotFoundError:
        raise UserError(f"the hub has no model {parameters.id}", hint="check the id; a private model needs HF_TOKEN") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        why = str(error.__cause__ or error).strip().partition("\n")[0]
        what = f"{parameters.id} could not be downloaded: no connection to the hub at {ENDPOINT} ({why or type(error).__name__})"
        hint = (
            "connect this machine, or name a mirror in HF_ENDPOINT, and run the same command again; "
            "or take a model that is here: [model] path or gguf, or architecture for one from scratch"
        )
        raise UserError(what, hint=hint) from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{parameters.id} could not be downloaded: {error}", hint="run again: the download resumes") from None
    shutil.copytree(folder, job.output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache"))
    files = sorted(path for path in job.output.rglob("*") if path.is_file())
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
