"""The wheel holds one name of its own, works beside a distribution that imports as `stages`, and is all that the tutorial needs."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from engine.build.driver import dvc_environment
from tests.end_to_end.hostile import SAID, shadow, write

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources with what is installed."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("engine", "stages"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", made, source], check=True)
    return next(made.glob("*.whl"))


@pytest.fixture(scope="module")
def tools(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, our dependencies, and two strangers that import as `engine` and `stages`."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    site = next(place.glob("lib/python*/site-packages"))
    for name in ("engine", "stages"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f"raise SystemExit('{SAID}: {name}')\n")
    # A path that stands in a .pth file is searched last, and the .pth files in it (the editable install) do not count.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    subprocess.run([*PIP, "--python", place / "bin/python", "install", "--no-deps", "--no-index", wheel], check=True)
    return place / "bin"


def test_one_name_holds_every_file_of_the_packages(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"adapterbuild"}
    sources = {p.relative_to(ROOT).as_posix() for package in ("engine", "stages") for p in (ROOT / package).rglob("*.py")}
    data = {
        "engine/setup/first.toml",
        "engine/setup/templates/chat.toml",
        "engine/setup/templates/chatml.jinja",
        "engine/identity/behaviours.json",
        "engine/report/page.html.jinja",
    }
    (top,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/top_level.txt"))
    assert zipfile.ZipFile(wheel).read(top).split() == [b"adapterbuild"]
    assert {f"adapterbuild/{name}" for name in sources | data} <= names


def test_the_installed_tool_builds_beside_strangers_and_in_a_workspace_with_modules_of_every_name(tools: Path, tmp_path: Path):
    root = write(tmp_path / "workspace")
    path = f"{tools}:{dvc_environment()['PATH']}"
    environment = {name: value for name, value in dvc_environment().items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=root, env=environment | {"PATH": path}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0 and SAID not in done.stderr, done.stdout + done.stderr
        return done

    run(tools / "engine", "init", ".")
    shadow(root)
    run(tools / "engine", "build", "split-a")
    # The environment has no `dvc` of its own: ours starts the steps with the first `python` of PATH.
    assert "Running stage 'split" not in run(Path(sys.executable).parent / "dvc", "repro", "split-a").stdout
    run(Path(sys.executable).parent / "dvc", "repro", "--force", "split-a")
    run("git", "add", "--all")
    assert str(tools) in run("git", "config", "--get", "merge.adapterbuild.driver").stdout


def test_the_tutorial_leads_from_the_installed_tool_and_rows_to_an_adapter_without_a_network(tools: Path, tmp_path: Path):
    page = (ROOT / "docs/tutorial.md").read_text("utf-8")
    blocks = [(found[1], found[2]) for found in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    installing, beginning, building = (text for language, text in blocks if language == "sh")
    assert "pip install adapterbuild" in installing.splitlines()
    (spec,), (rows,), (said,) = ([text for language, text in blocks if language == wanted] for wanted in ("toml", "json", "text"))
    head, _, content = spec.partition("\n")
    examples = [json.loads(line) for line in rows.splitlines()]
    texts = [*examples[:2], {"ticket": "The invoice has no date.", "team": "billing"}]
    # As many rows as the page says, of which the third lacks what the page's third one lacks.
    many = [texts[n % 3] | {"id": f"T{n}", "ticket": f"{texts[n % 3]['ticket']} {n}", "lang": "en"} for n in range(90)]
    many[2] = examples[2]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    script = [
        "set -e -o pipefail",
        'engine() { command engine "$@" || { code=$?; [ "$1 $code" = "plan 2" ]; }; }  # 2: there is something to do',
        beginning,
        f"cat > {head.removeprefix('# ')} <<'END'\n{content}END",
        building,
    ]
    environment = {key: value for key, value in dvc_environment().items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment |= {"PATH": f"{tools}:{dvc_environment()['PATH']}", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [line for line in said.splitlines() if line not in done.stderr], done.stderr
    (adapter,) = (tmp_path / "my-models/artifacts").glob("train-adapter/**/adapter_model.safetensors")
    assert adapter.stat().st_size
