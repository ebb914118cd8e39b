"""The how-to of a team's week: every command of the page is run, in the page's order, by two people with real git, DVC and pip.

Each person has a home, a virtual environment and a clone; they share a repository and DVC's remote, a bucket.
"""

import json
import os
import re
import shlex
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from engine.cli import main as cli
from tests.end_to_end.conftest import ROOT
from tests.support.warm import warm_python

PAGE = ROOT / "docs/how-to/team-week.md"
PEOPLE = ("Ada", "Ben")
SHARED, STORE, ADDRESS = "/srv/team", "https://s3.example.org", "1a2b3c4d"
"""What the page writes for the folder that both reach, the server of the bucket and the address of an adapter."""

PRELUDE = """\
set -e -o pipefail
engine() { command engine "$@" || { code=$?; [ "$1 $code" = "plan 2" ]; }; }  # 2: there is something to do
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of the page."""

    language: str
    head: str
    """Its first line without `# `: who types it, or which file it is."""
    text: str
    """All of it."""
    shown: str = ""
    """The output that the page shows of it."""

    @property
    def person(self) -> str:
        return self.head.partition(", ")[0]

    @property
    def remote(self) -> str:
        """The remote of which alone the block is; empty for all others."""
        return self.head.partition(", with a ")[2]


def blocks() -> list[Block]:
    """The blocks of the page; one of `text` belongs to that before it."""
    found: list[Block] = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if language == "text":
            found[-1] = Block(found[-1].language, found[-1].head, found[-1].text, text)
        else:
            found.append(Block(language, text.partition("\n")[0].removeprefix("# "), text))
    return found


def lacking(shown: str, output: str) -> str | None:
    """The line of SHOWN up to which OUTPUT has all of it in one piece; None where it has all.

    A line `...` stands for any number of lines, `…` for any text; empty lines and the number of blanks do not count.
    """
    said = "".join(f"{' '.join(line.split())}\n" for line in output.splitlines() if line.strip())
    pattern = "^"
    for line in shown.splitlines():
        pattern += r"(?:.*\n)*?" if line == "..." else ".*".join(map(re.escape, " ".join(line.split()).split("…"))) + "\n"
        if not re.search(pattern, said, re.MULTILINE):
            return line
    return None


def next_release(package: str, folder: Path) -> None:
    """A wheel of the installed PACKAGE under the version that follows."""
    installed = distribution(package)
    version = re.sub(r"\d+$", lambda last: str(int(last[0]) + 1), installed.version)
    old, new = (f"{package}-{one}.dist-info" for one in (installed.version, version))
    folder.mkdir()
    with ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        for file in installed.files or ():
            if file.suffix == ".py" or file.name in ("METADATA", "WHEEL"):
                data = file.read_binary()
                if file.name == "METADATA":
                    data = data.replace(f"Version: {installed.version}\n".encode(), f"Version: {version}\n".encode(), 1)
                wheel.writestr(str(file).replace(old, new), data)
        wheel.writestr(f"{new}/RECORD", "")


@dataclass
class Person:
    """One of the two: a home, a virtual environment over the installed packages, and the tools of the page."""

    name: str
    root: Path
    """The folder of everybody's homes, of what they share and of the index of packages."""
    folder: Path = field(init=False)
    """Where the last block has left them."""

    def __post_init__(self) -> None:
        self.folder = home = self.root / self.name
        venv.create(home / ".venv", symlinks=True)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(home / ".venv")}))
        (packages / "installed.pth").write_text(sysconfig.get_path("purelib"))
        python, pip = warm_python(), home / ".venv/bin/python"
        tools = {"engine": [python, "-m", "engine"], "dvc": [python, "-m", "dvc"], "python": [python], "pip": [pip, "-m", "pip"]}
        for tool, command in tools.items():
            path = home / "bin" / tool
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
            path.chmod(0o755)
        (home / ".gitconfig").write_text(f"[user]\nname = {self.name}\nemail = {self.name}@example.org\n")
        git = {"GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}
        index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.root / "index"), "PIP_CONFIG_FILE": os.devnull}
        paths = {"PATH": f"{home}/bin{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(packages)}
        self.environment = os.environ | git | index | paths | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def types(self, commands: str) -> str:
        """What COMMANDS say; one that fails fails the test."""
        script, left = self.root / f"{self.name}.sh", self.root / f"{self.name}.left"
        script.write_text(f"{PRELUDE}{commands}\npwd > {shlex.quote(str(left))}\n")
        out, environment = subprocess.PIPE, self.environment
        done = subprocess.run(
            ["bash", str(script)], cwd=self.folder, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == 0, f"{self.name} typed\n{commands}\n{done.stdout}"
        self.folder = Path(left.read_text().strip())
        return done.stdout

    def address(self) -> str:
        """The beginning of the content address of `topic`'s adapter, as the engine lists it."""
        listed = json.loads(self.types("engine adapters topic --json"))["adapters"]
        return str(listed[0]["digest"]).removeprefix("sha256:")[: len(ADDRESS)]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a real server of S3's protocol, on loopback."""
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto's server is not installed").ThreadedMotoServer("127.0.0.1", 0)
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="our-models")
    yield url
    server.stop()


@pytest.mark.long
def test_a_team_gets_through_the_week_by_the_commands_of_the_page(store: str, tmp_path: Path):
    """With a bucket as DVC's remote; what a folder gives is in test_restoring."""
    (tmp_path / "srv/team").mkdir(parents=True)
    next_release("sacrebleu", tmp_path / "index")
    people = {name: Person(name, tmp_path) for name in PEOPLE}
    present = people[PEOPLE[0]]
    for block in blocks():
        if block.language != "sh":
            (present.folder / block.head).write_text(block.text)
            continue
        if block.remote == "folder":
            continue
        present = people[block.person]
        commands = block.text.replace(SHARED, str(tmp_path / "srv/team")).replace(STORE, store)
        if ADDRESS in commands:
            commands = commands.replace(ADDRESS, present.address())
        output = present.types(commands)
        missing = lacking(block.shown, output)
        assert missing is None, f"the page shows `{missing}`, and this is what was said:\n{commands}\n{output}"
        # What a colleague has built and pushed runs nowhere again, and nobody has anything left to commit.
        assert "engine build --pull" not in commands or not re.search(r"^run ", output, re.MULTILINE), output
        if "git commit" in commands or "git merge" in commands:
            assert present.types("git status --porcelain") == ""


def test_every_block_says_who_types_it_or_which_file_it_is():
    for block in blocks():
        assert block.text.startswith("# "), block.text
        if block.language == "sh":
            assert block.person in PEOPLE and block.remote in ("", "folder", "bucket"), block.head
        else:
            assert Path(block.head).suffix == {"toml": ".toml", "python": ".py"}[block.language]


def typed() -> list[list[str]]:
    """The words of every command of the engine on the page."""
    lines = [line for block in blocks() if block.language == "sh" for line in block.text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("engine ")]


@pytest.mark.parametrize("words", typed(), ids=" ".join)
def test_every_command_of_the_engine_on_the_page_is_one_that_it_takes(words: list[str]):
    """What the week shows in minutes, in an instant: verbs and options, not what they do."""
    command = cli.command()
    context = command.make_context("engine", list(words), resilient_parsing=True)
    name, verb, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert verb.make_context(name, rest, parent=context).command is verb


def test_a_shown_line_that_is_not_said_is_found():
    output = "run   a\n\nkeep  b\ndone  in 3 s\n"
    assert lacking("run a\nkeep b\n", output) is None
    assert lacking("run a\n...\ndone in … s\n", output) is None
    assert lacking("run a\ndone in 3 s\n", output) == "done in 3 s", "there is a line between them"
    assert lacking("keep b\n...\nrun a\n", output) == "run a", "it came before"
    assert lacking("done in … min\n", output) == "done in … min"
