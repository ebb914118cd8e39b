"""What the executor makes of Slurm's commands, which are scripts here; tests/end_to_end/test_clusters.py runs real ones."""

import json
import sys
from pathlib import Path

import pytest

from engine.build.executors import slurm
from engine.build.executors.cluster import Full, JobEnd, Needs, Unreachable
from engine.build.executors.slurm import Slurm
from engine.core.errors import UserError

COMMANDS = """#!{python}
import json, pathlib, sys, time

here, name = pathlib.Path(__file__).parent, pathlib.Path(__file__).name
told = json.loads((here / "told.json").read_text()).get(name, {{}})
jobs = here / "jobs.json"
if name == "sbatch" and "--test-only" not in sys.argv:
    known = json.loads(jobs.read_text()) if jobs.exists() else []
    if not told.get("fails"):
        jobs.write_text(json.dumps([*known, {{"arguments": sys.argv[1:], "script": sys.stdin.read()}}]))
        (here / "told.json").write_text("{{}}")
        time.sleep(told.get("sleeps", 0))
        print(len(known) + 1)
if name == "squeue":
    for number, job in enumerate(json.loads(jobs.read_text()), 1):
        print(number, *[one.partition("=")[2] for one in job["arguments"] if one.startswith("--comment=")], sep="|")
print(told.get("says", ""), end="")
print(told.get("fails", ""), end="", file=sys.stderr)
sys.exit(bool(told.get("fails")))
"""


class Commands:
    """Slurm's commands in a folder, which say and do what they are told next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo"):
            path = folder / name
            path.write_text(COMMANDS.format(python=sys.executable))
            path.chmod(0o755)
        self.tell()

    def tell(self, **told: object) -> None:
        (self.folder / "told.json").write_text(json.dumps(told))

    @property
    def jobs(self) -> list[dict[str, object]]:
        return json.loads((self.folder / "jobs.json").read_text())


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Commands(tmp_path)


def test_a_job_that_slurm_took_although_sbatch_timed_out_is_not_submitted_again(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    scheduler = Slurm.of({"options": ["--comment=adapters"]})
    command = ["engine", "work", "key", "--attempt", "one"]
    monkeypatch.setattr(slurm, "_ANSWER_SECONDS", 1.0)
    commands.tell(sbatch={"sleeps": 30})
    with pytest.raises(Unreachable, match="sbatch does not answer for 1 s"):
        scheduler.submit("ab-split-a", command, Needs())
    monkeypatch.setattr(slurm, "_ANSWER_SECONDS", 60.0)
    assert scheduler.submit("ab-split-a", command, Needs()) == "1" and len(commands.jobs) == 1
    assert scheduler.submit("ab-split-a", [*command[:-1], "two"], Needs()) == "2", "another attempt is another job"
    comments = [str(one) for job in commands.jobs for one in job["arguments"] if str(one).startswith("--comment=adapters adapterbuild:")]
    assert len(set(comments)) == 2


def test_a_job_that_slurm_never_took_is_submitted_again(commands: Commands):
    scheduler = Slurm.of({})
    scheduler.submit("ab-split-b", ["true"], Needs())
    commands.tell(sbatch={"fails": "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"})
    with pytest.raises(Unreachable):
        scheduler.submit("ab-split-a", ["true", "a"], Needs())
    commands.tell()
    assert scheduler.submit("ab-split-a", ["true", "a"], Needs()) == "2"


def test_jobs_on_one_node_ask_for_one_node(commands: Commands):
    Slurm.of({}).submit("ab-split-a", ["true"], Needs(cores=2))
    assert {"--nodes=1", "--ntasks=1", "--cpus-per-task=2"} <= set(map(str, commands.jobs[0]["arguments"]))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("error: QOSMaxSubmitJobPerUserLimit\nBatch job submission failed: Job violates accounting/QOS policy (job submit limit, …)", Full),
        ("error: AssocGrpSubmitJobsLimit\nBatch job submission failed: Job violates accounting/QOS policy (job submit limit, …)", Full),
        ("Batch job submission failed: Resource temporarily unavailable", Full),
        ("error: QOSMaxCpuPerUserLimit\nBatch job submission failed: Job violates accounting/QOS policy (job submit limit, …)", UserError),
        ("Batch job submission failed: Invalid account or account/partition combination specified", UserError),
    ],
)
def test_limits_on_submitted_jobs_pass_and_others_are_refusals(commands: Commands, said: str, kind: type[Exception]):
    commands.tell(sbatch={"fails": said})
    scheduler = Slurm.of({})
    with pytest.raises(kind):
        scheduler.submit("ab-split-a", ["true"], Needs())
    assert (scheduler.refusal(Needs()) is None) == (kind is Full)


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ("JobState=FAILED Reason=NonZeroExitCode ExitCode=127:0 BatchHost=n1", JobEnd("exit code 127 on n1", 127, "not found\n")),
        ("JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 BatchHost=n2", JobEnd("OUT_OF_MEMORY on n2", None, "not found\n")),
        ("JobState=FAILED Reason=RaisedSignal:9(Killed) ExitCode=0:9 BatchHost=n2", JobEnd("signal 9 on n2", 0, "not found\n")),
        ("JobState=NODE_FAIL Reason=NodeDown ExitCode=0:0 BatchHost=n3", JobEnd("NODE_FAIL on n3", None, "not found\n")),
        ("JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15 BatchHost=n3", JobEnd("TIMEOUT on n3", None, "not found\n")),
        ("JobState=PENDING Reason=BeginTime ExitCode=0:0", None),
    ],
)
def test_the_end_of_a_job_is_told_with_state_node_and_what_it_has_written(commands: Commands, said: str, end: JobEnd | None):
    scheduler = Slurm.of({})
    scheduler.submit("ab-split-a", ["true"], Needs())
    (commands.folder / "cache/adapterbuild/slurm/7.out").write_text("not found\n")
    commands.tell(scontrol={"says": f"JobId=7 JobName=ab-split-a {said}\n"})
    assert scheduler.explain("7") == end
    commands.tell(scontrol={"fails": "slurm_load_jobs error: Invalid job id specified"})
    assert scheduler.explain("8") is None
