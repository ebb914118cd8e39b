"""A workspace with a copy of the code and a model without weights, and the commands that are run in it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.truth_oracle import digest, file_digest
from benchmarks.truth_world import ROOT, World
from benchmarks.warm_dvc import WarmDvc

EOS = "<eos>"
_DVC = WarmDvc()


class CommandError(Exception):
    """A command that must succeed has failed."""


def make_model(folder: Path) -> None:
    """A model folder with a byte-level tokenizer and no weights: the steps built here read nothing else."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["Say Tell Repeat alpha beta gamma delta"], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}), "utf-8")
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 280}), "utf-8")


@dataclass
class Workspace:
    """A workspace with a copy of the code, and the commands that run in it."""

    root: Path

    def make(self, world: World) -> None:
        """Write code, model, rows and specs, compile and commit."""
        for package in ("engine", "stages"):
            shutil.copytree(ROOT / package, self.root / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, self.root / name)
        make_model(self.root / "model")
        world.write(self.root)
        self.git("init", "--quiet")
        self.must("dvc", "init", "--quiet")
        self.must("engine", "compile")
        self.commit()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        cache = self.root.parent / "cache"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        own = os.environ | {"XDG_CACHE_HOME": str(cache), "DVC_SITE_CACHE_DIR": str(cache / "dvc"), "DVC_NO_ANALYTICS": "1", "PATH": path}
        if command[0] == "dvc":
            return _DVC.run(command[1:], self.root, own)
        return subprocess.run([sys.executable, "-m", *command], cwd=self.root, env=own, capture_output=True, text=True, check=False)

    def must(self, *command: str) -> str:
        """The output of a command that must succeed."""
        done = self.run(*command)
        if done.returncode:
            raise CommandError(f"`{' '.join(command)}` exits with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout + done.stderr

    def git(self, *command: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(["git", *who, *command], cwd=self.root, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self) -> str:
        """Commit everything; the commit's name."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "state")
        return self.git("rev-parse", "HEAD")

    def plan(self, targets: Sequence[str]) -> dict[str, str]:
        """What is planned for each step."""
        done = self.run("engine", "plan", "--json", *targets)
        if done.returncode not in (0, 2):
            raise CommandError(f"the plan fails with {done.returncode}:\n{done.stderr[-3000:]}")
        return {step["name"]: step["action"] for step in json.loads(done.stdout)["steps"]}

    def repro(self, targets: Sequence[str]) -> dict[str, str]:
        """What `dvc repro` did with each step; it runs `resolve` always."""
        output = self.must("dvc", "repro", *targets)
        patterns = {"keep": r"Stage '(.+?)' didn't change", "restore": r"Stage '(.+?)' is cached", "run": r"Running stage '(.+?)'"}
        return {name: action for action, pattern in patterns.items() for name in re.findall(pattern, output) if name != "resolve"}

    def build(self, targets: Sequence[str], steps: Sequence[str]) -> dict[str, str]:
        """What `engine build` did with each step; it says nothing of what it kept, nor of `resolve`."""
        output = self.must("engine", "build", *targets)
        said = {name: word for word, name in re.findall(r"^(run|restored) +(\S+)", output, re.MULTILINE)}
        words = {"run": "run", "restored": "restore"}
        return {name: words[said[name]] if name in said else "keep" for name in steps}

    def state(self) -> str:
        """A digest of every file that a refused command must not touch."""
        paths = [*(self.root / "artifacts").rglob("*"), *(self.root / "metrics").rglob("*"), *self.root.glob("*.*")]
        return digest(*(f"{path} {file_digest(path)}" for path in sorted(paths) if path.is_file()))
