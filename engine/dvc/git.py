"""Reads a workspace's git repository without a checkout: commits, files of a commit, and all versions of DVC's files."""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.core.errors import UserError, did_you_mean

_DVC_FILES = ("--", ":(glob)**/dvc.lock", ":(glob)**/*.dvc")
"""Pathspecs of all files that refer to content of DVC's cache, below git's working directory."""
_SUBMODULE = "160000"


def has_repository(root: Path) -> bool:
    """Whether ROOT is in a git repository, even a broken one."""
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def signing_key(root: Path) -> str:
    """The file of the SSH key with which git signs commits in ROOT; empty if git signs with GPG, or has the key in no file."""
    if _git(root, "config", "--get", "gpg.format", check=False).strip() != b"ssh":
        return ""
    found = _git(root, "config", "--get", "user.signingkey", check=False).decode().strip()
    return "" if found.startswith(("key::", "ssh-")) else found


def commit_of(root: Path, revision: str) -> str:
    """The commit that REVISION refers to; raises UserError if there is none."""
    if not has_repository(root):
        raise UserError(f"{root} is not in a git repository", hint="run: git init")
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", check=False).split()
    # A range names two commits.
    if len(found) != 1:
        known = _git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags").decode().split()
        raise UserError(f"unknown git revision '{revision}'", hint=did_you_mean(revision, known) or "commit first: git commit")
    return found[0].decode()


def merge_base(root: Path, one: str, other: str) -> str:
    """The last commit that the revisions ONE and OTHER have in common; raises UserError if there is none."""
    found = _git(root, "merge-base", commit_of(root, one), commit_of(root, other), check=False).split()
    if not found:
        hint = "in a shallow clone: git fetch --unshallow; else compare the two themselves: engine diff " + f"{one} {other}"
        raise UserError(f"{one} and {other} have no commit in common", hint=hint)
    return found[0].decode()


def has_commits(root: Path) -> bool:
    """Whether ROOT is in a git repository with at least one commit."""
    return has_repository(root) and bool(_git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False))


def files_at(root: Path, commit: str, *paths: str) -> dict[str, bytes]:
    """The content in COMMIT of all files at or below PATHS, by path relative to ROOT; missing files are omitted."""
    listed = _git(root, "ls-tree", "-r", "-z", commit, "--", *paths).decode().split("\0")
    blobs = {path: information.split()[2] for line in listed if line for information, _, path in [line.partition("\t")]}
    held = dict(contents(root, blobs.values()))
    return {path: held[blob] for path, blob in blobs.items() if blob in held}


def dvc_files(root: Path, history: bool) -> set[str]:
    """The blobs of all `dvc.lock` and `*.dvc` files below ROOT: in index, stashes and tips of all refs; with HISTORY, in all commits."""
    stashed = _stashed(root)
    found = _staged(_git(root, "ls-files", "--stage", "-z", *_DVC_FILES))
    return found | (_in_history(root, stashed) if history else set()) | _in_tips(root, stashed)


def _in_history(root: Path, stashed: Sequence[str]) -> set[str]:
    # Every version in history was introduced by some commit, as a difference to a parent or in a root commit.
    raw = ("-m", "--root", "--raw", "--no-abbrev", "--no-renames", "--format=")
    return _new_blobs(_git(root, "log", "--all", "--full-history", *raw, *stashed, *_DVC_FILES))


def _in_tips(root: Path, stashed: Sequence[str]) -> set[str]:
    """The blobs in the tips of all refs: branches, tags, remote branches, and DVC's experiments under `refs/exps`."""
    empty = _git(root, "hash-object", "-t", "tree", "--stdin").decode().strip()
    trees = _git(root, "log", "--no-walk=unsorted", "--all", "--format=%T", *stashed, "--").decode().split()
    pairs = "".join(f"{empty} {tree}\n" for tree in dict.fromkeys(trees))
    return _new_blobs(_git(root, "diff-tree", "--stdin", "-r", "--raw", "--no-abbrev", "--no-renames", *_DVC_FILES, given=pairs.encode()))


def _stashed(root: Path) -> list[str]:
    """The commits of all stashes and their parents; only the stash's reflog lists those below the newest."""
    refs = _git(root, "for-each-ref", "--format=%(refname)").decode().split()
    logs = [_git(root, "log", "--walk-reflogs", "--format=%H %P", ref, "--") for ref in refs if ref.endswith("stash")]
    return sorted({commit for log in logs for commit in log.decode().split()})


def _staged(listing: bytes) -> set[str]:
    """The blobs listed by `git ls-files --stage -z`, including all sides of a conflict."""
    fields = [entry.split(None, 2) for entry in listing.decode().split("\0") if entry]
    return {blob for mode, blob, _ in fields if mode != _SUBMODULE}


def _new_blobs(differences: bytes) -> set[str]:
    """The blobs on the new side of git's raw diff output."""
    fields = [line.split(None, 5) for line in differences.decode(errors="replace").splitlines() if line.startswith(":")]
    return {new for _, mode, _, new, *_ in fields if mode != _SUBMODULE and new.strip("0")}


def contents(root: Path, blobs: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yields each blob with its content; raises UserError if git lacks one."""
    wanted = sorted(set(blobs))
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{blob}\n" for blob in wanted).encode())
        names.seek(0)
        with subprocess.Popen(["git", "cat-file", "--batch"], cwd=root, stdin=names, stdout=subprocess.PIPE) as process:
            assert process.stdout
            for blob in wanted:
                _, _, size = process.stdout.readline().decode().partition(" blob ")
                if not size:
                    process.kill()
                    raise UserError(f"git object {blob} is missing", hint="run: git fsck (in a partial clone: git fetch --refetch)")
                yield blob, process.stdout.read(int(size) + 1)[:-1]


def _git(root: Path, *arguments: str, given: bytes = b"", check: bool = True) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, input=given, capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed", hint="install git") from None
    if done.returncode and check:
        raise UserError(f"`git {arguments[0]}` failed in {root}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
