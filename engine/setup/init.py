"""Creates a workspace: a DVC repository inside git, ignore files, and a first spec."""

import filecmp
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engine.build.driver import dvc_environment
from engine.core.errors import UserError, did_you_mean
from engine.core.workspace import CODE_ROOT, workspace_above
from engine.dvc.config import default_remote
from engine.dvc.conflicts import ATTRIBUTES, install_driver
from engine.identity.environment import LOCK, REQUIREMENTS
from engine.setup.samples import TEMPLATES
from engine.setup.samples import sample as sample_rows
from engine.setup.versions import first_lock

if TYPE_CHECKING:
    from engine.setup.first_spec import FirstSpec

GITIGNORE = ("/artifacts/", "/report/", "/dvc_plots/", "/.adapterbuild/", "__pycache__/")
DVCIGNORE = ("__pycache__", "*.pyc")


COPIED = 50_000_000
"""The largest file of rows, in bytes, that is copied into a workspace and so comes into git."""

PLUGINS = {
    **{name: f"dvc-{name}" for name in ("s3", "gs", "azure", "ssh", "oss", "hdfs", "gdrive")},
    **{"webdav": "dvc-webdav", "webdavs": "dvc-webdav", "webhdfs": "dvc-webhdfs"},
}
"""The packages that DVC needs for a remote, by the scheme of its URL; others need none."""

CI_FILES = {"github": ".github/workflows/adapterbuild.yml", "gitlab": ".gitlab-ci.yml"}
"""Where a code host looks for the file that says what it checks."""


@dataclass(frozen=True)
class Made:
    """What `init` has made."""

    files: tuple[str, ...]
    """The names of new files."""
    spec: str | None = None
    """The spec for the user's rows, if there are any, its task, and how the rows are read."""
    task: str | None = None
    told: tuple[str, ...] = ()


def init(folder: Path, ci: str | None = None, data: Path | None = None, answer: str | None = None, template: str | None = None) -> Made:
    """Make FOLDER a workspace and keep existing files.

    DATA: write a spec for these rows, whose column ANSWER is learned, if given; in a workspace with specs it becomes another one, under
    names of its own. A file from outside is copied into the workspace unless it is large. Raises UserError as `spec_for` does, and if a
    spec learns the same of the same file already.
    TEMPLATE: write a spec with comments for rows of this sort (see `engine.setup.samples`); without DATA, also a small file of such rows.
    CI: also write the checks of pull requests for `github` or `gitlab`; raises UserError for another name, and if there is such a file.
    """
    if ci is not None:
        if ci not in CI_FILES:
            raise UserError(f"--ci must be github or gitlab, got '{ci}'", hint=did_you_mean(ci, CI_FILES))
        if (folder / CI_FILES[ci]).exists():
            hint = f"move it away, or add the commands that `engine init --ci {ci}` writes in an empty folder"
            raise UserError(f"{CI_FILES[ci]} exists already", hint=hint)
    if template is not None and template not in TEMPLATES:
        raise UserError(f"--template names no known template: {template}", hint=did_you_mean(template, TEMPLATES))
    if answer is not None and data is None:
        raise UserError("--answer names a column of the rows, but there are none", hint="add --data FILE")
    if template is not None and data is None:
        with TemporaryDirectory() as samples:
            sample = Path(samples, f"{template}.jsonl")
            sample.write_text(sample_rows(template), "utf-8")
            # Rows that are there already, such as the user's in place of the sample, are those of the spec.
            own = folder / "data" / sample.name
            if own.is_file():
                return _init(folder, ci, own, None, template)
            made = _init(folder, ci, sample, None, template)
            told = f"data/{sample.name} has rows as the spec reads them: put your own in their place"
            return replace(made, told=(*made.told[:-1], told))  # rather than whence they were copied
    return _init(folder, ci, data, answer, template)


def _init(folder: Path, ci: str | None, data: Path | None, answer: str | None, template: str | None) -> Made:
    """As `init`; TEMPLATE needs DATA."""
    place = _place(folder, data) if data is not None else None
    first = _spec_for(folder, data, place, answer, template) if data is not None and place is not None else None
    above = workspace_above(folder)
    if above is not None and not (folder / ".dvc").is_dir():
        raise UserError(f"{folder} is inside the workspace {above}", hint="run engine there, or choose a folder outside of it")
    folder.mkdir(parents=True, exist_ok=True)
    inside = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=folder, capture_output=True, check=False)
    if inside.returncode:
        _run(folder, "git", "init", "--quiet")
    if not (folder / ".dvc").is_dir():
        top = (folder / ".git").exists()
        _run(folder, sys.executable, "-P", "-m", "dvc", "init", "--quiet", *([] if top else ["--subdir"]))
        _run(folder, sys.executable, "-P", "-m", "dvc", "config", "core.analytics", "false")
    _extend(folder / ".gitignore", GITIGNORE)
    _extend(folder / ".dvcignore", DVCIGNORE)
    _extend(folder / ".gitattributes", ATTRIBUTES)
    install_driver(folder, CODE_ROOT)
    locked = first_lock(folder)
    made = [LOCK] if locked and locked.versions else []
    told = list(first.told) if first else []
    if data is not None and place is not None:
        told += _brought(folder, data, place)
    text = first.text if first else resources.files("engine.setup").joinpath("first.toml").read_text("utf-8")
    if first or not any(folder.glob("specs/*.toml")):
        spec = folder / "specs" / f"{first.name if first else 'first'}.toml"
        spec.parent.mkdir(exist_ok=True)
        spec.write_text(text, "utf-8")
        made.append(f"specs/{spec.name}")
    for name, content in (first.files if first else {}).items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, "utf-8")
            made.append(name)
    if ci is not None:
        checks = folder / CI_FILES[ci]
        checks.parent.mkdir(parents=True, exist_ok=True)
        checks.write_text(_checks(folder, ci), "utf-8")
        made.append(CI_FILES[ci])
    return Made(tuple(made), f"specs/{first.name}.toml" if first else None, first.task if first else None, tuple(told))


def _checks(folder: Path, ci: str) -> str:
    """The checks of pull requests on the host CI, with the lock of FOLDER and what DVC needs for its default remote, if it has one."""
    text = resources.files("engine.setup").joinpath(f"{ci}.yml").read_text("utf-8")
    text = text if (folder / LOCK).exists() else text.replace(LOCK, REQUIREMENTS)
    scheme, separator, _ = default_remote(folder).get("url", "").partition("://")
    if separator or scheme:
        plugin = PLUGINS.get(scheme) if separator else None
        text = text.replace("adapterbuild dvc-s3 ", f"adapterbuild {plugin} " if plugin else "adapterbuild ")
    return text


def _place(folder: Path, data: Path) -> str:
    """Where the workspace FOLDER has DATA: relative to it if the file is inside or becomes a copy in `data/`, else absolute."""
    if data.is_dir():
        from engine.setup.first_spec import SOURCES

        files = sorted(path.name for path in data.iterdir() if SOURCES.keys() & set(path.suffixes))
        hint = f"for example --data {data / files[0]}" if files else "give the file with the rows"
        raise UserError(f"--data must name a file of rows, {data} is a folder", hint=hint)
    if not data.is_file():
        raise UserError(f"file not found: {data}")
    if data.resolve().is_relative_to(folder.resolve()):
        return data.resolve().relative_to(folder.resolve()).as_posix()
    if data.stat().st_size > COPIED:
        return str(data.resolve())
    there = folder / "data" / data.name
    if there.exists() and not (there.is_file() and filecmp.cmp(there, data, shallow=False)):
        raise UserError(
            f"data/{data.name} is another file than {data}", hint=f"rename one of them, or use the one that is there: --data {there}"
        )
    return f"data/{data.name}"


def _brought(folder: Path, data: Path, place: str) -> list[str]:
    """Copy DATA to its PLACE in the workspace FOLDER, or leave it where it is; a sentence that says so if it is outside."""
    if data.resolve().is_relative_to(folder.resolve()):
        return []
    if Path(place).is_absolute():
        size = f"{data.stat().st_size / 1e6:,.0f} MB"
        return [f"{data.name} ({size}) stays where it is, outside of git and DVC: the spec names it as {place}, which other machines lack"]
    (folder / place).parent.mkdir(exist_ok=True)
    shutil.copyfile(data, folder / place)
    return [f"{data.name} is copied to {place}, so that git has it with the specs"]


def _spec_for(folder: Path, data: Path, place: str, answer: str | None, template: str | None) -> "FirstSpec":
    """A spec for DATA whose names no other spec of the workspace FOLDER has; raises UserError if one of them learns the same from PLACE."""
    from engine.setup.first_spec import spec_for

    if not any(folder.glob("specs/*.toml")):
        return spec_for(data, place, answer, template=template)
    taken = set[str]()
    learned = dict[tuple[object, object], str]()
    for file in sorted(folder.glob("specs/**/*.toml")):
        try:
            document = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            document = {}  # `engine check` says what is wrong with it
        sections = {key: value for key, value in document.items() if isinstance(value, dict)}
        taken |= {file.stem, *(str(sections.get(key, {}).get("name")) for key in ("experiment", "model")), *sections.get("tasks", {})}
        for task in sections.get("tasks", {}).values():
            source, teacher = (task.get(key) if isinstance(task, dict) else None for key in ("source", "teacher"))
            path = source.get("path") if isinstance(source, dict) else None
            column = teacher.get("column") if isinstance(teacher, dict) else None
            learned.setdefault((str(path), column), file.relative_to(folder).as_posix())
    found = spec_for(data, place, answer, taken, template)
    if (place, found.answer) in learned:
        what = f"{learned[place, found.answer]} learns {found.answer or 'the answers'} from {place} already"
        raise UserError(what, hint="edit it; or name another column as the answer: --answer COLUMN")
    return found


def _extend(path: Path, wanted: tuple[str, ...]) -> None:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    missing = [line for line in wanted if line not in lines]
    if missing:
        path.write_text("\n".join([*lines, *missing]) + "\n", "utf-8")


def _run(folder: Path, *command: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, env=dvc_environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed", hint="install git") from None
    if done.returncode:
        raise UserError(f"`{' '.join(command[-3:])}` failed in {folder}: {done.stderr.strip() or done.stdout.strip()}")
