"""The published experiments, and copies of their workspaces that can be checked without a hub and without public data."""

import shutil
from pathlib import Path

SEEDS = Path(__file__).parents[2] / "specs" / "seeds"
NAMES = sorted(path.name for path in SEEDS.iterdir() if path.is_dir())

UNKNOWN = 'revision = "main"'
"""What stands where a commit was not known."""
DATA = {
    "published/data/dialogsum.train.jsonl": '{"fname": "train_0", "dialogue": "Hello", "summary": "A hello.", "topic": "hello"}\n',
    "data/mts_dialog/MTS-Dialog-TrainingSet.csv": "ID,section_header,section_text,dialogue\n0,CC,Cough.,Doctor: Hello\n",
    "data/self_instruct/user_oriented_instructions.jsonl": '{"instruction": "Say hello", "instances": [{"output": "Hello"}]}\n',
    "data/wikitext2/valid.txt": "A line.\n",
}
"""Files that nobody has from git, one row each, by their places."""


def copied(name: str, folder: Path) -> Path:
    """A copy of an experiment, with stand-ins for the files that git does not hold and for the commit that was not known."""
    root = folder / name
    shutil.copytree(SEEDS / name, root, ignore=shutil.ignore_patterns("artifacts", "metrics", "plots", ".dvc*", "dvc.*", "params.yaml"))
    for place, text in DATA.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        if not (root / place).exists():
            (root / place).write_text(text, "utf-8")
    for path in (root / "published/specs").rglob("*.toml"):
        path.write_text(path.read_text("utf-8").replace(UNKNOWN, f'revision = "{"0" * 40}"'), "utf-8")
    return root
