"""A file that is not there: what may be meant, and the page that tells where it comes from."""

from pathlib import Path, PurePosixPath

import pytest

from engine.checks.missing_files import missing_inputs
from engine.core.errors import Location, UserError
from engine.core.graph import Input, Step
from engine.core.workspace import Workspace, select
from stages import generate, split
from stages.generate.sources.jsonl import Jsonl
from stages.generate.teachers.gold import Gold


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace below a repository, two folders deep."""
    (tmp_path / ".git").mkdir()
    made = tmp_path / "seeds/mine"
    (made / "specs/parts").mkdir(parents=True)
    (made / "data").mkdir()
    return made


def hint(root: Path, path: str, spec: str = "specs/parts/tasks.toml") -> str:
    item = Input(path, where=Location(spec, 3, 5))
    step = Step("split-a", split.KIND, split.Parameters(), {"rows": item}, "", Location(spec))
    (problem,) = missing_inputs([step], root)
    assert problem.what == f"file not found: {path}" and problem.where == item.where and problem.hint
    return problem.hint


ALONE = "paths are relative to the workspace"


def test_the_nearest_page_that_names_the_file_or_its_folder_is_told(root: Path):
    assert hint(root, "data/rows.jsonl") == ALONE
    above = root.parent / "README.md"
    above.write_text("What comes into `data/`: rows.", "utf-8")
    assert hint(root, "data/rows.jsonl") == f"see ../README.md; {ALONE}"
    (root / "README.md").write_text("Nothing of the sort.", "utf-8")
    assert hint(root, "data/rows.jsonl") == f"see ../README.md; {ALONE}"
    (root / "README.md").write_text("`rows.jsonl` is at ...", "utf-8")
    assert hint(root, "data/rows.jsonl") == f"see README.md; {ALONE}"
    (root / "specs/parts/README.md").write_text("data/rows.jsonl", "utf-8")
    assert hint(root, "data/rows.jsonl") == f"see specs/parts/README.md; {ALONE}"
    assert hint(root, "data/rows.jsonl", "specs/mine.toml") == f"see README.md; {ALONE}"


def test_pages_outside_of_the_repository_are_nobodys(root: Path):
    (root.parents[1] / ".git").rmdir()
    (root.parent / "README.md").write_text("data/", "utf-8")
    assert hint(root, "data/rows.jsonl") == ALONE
    (root.parent / "README.md").unlink()
    assert hint(root, "/nowhere/rows.jsonl", "/elsewhere/spec.toml") == ALONE


def test_a_file_of_nearly_that_name_is_meant(root: Path):
    (root / "data/rows.jsonl").write_text("", "utf-8")
    (root / "README.md").write_text("data/", "utf-8")
    assert hint(root, "data/row.jsonl") == f"did you mean 'data/rows.jsonl'? {ALONE}"
    assert hint(root, "data/else.csv") == f"see README.md; {ALONE}"
    assert hint(root, "datta/rows.jsonl") == ALONE


def patterns(root: Path, *paths: str) -> list[str]:
    """What is said of a task that reads files by PATHS."""
    rows = generate.Parameters(source=Jsonl(path=paths), prompts=("{{ q }}",), teacher=Gold(column="a"))
    step = Step("generate-a", generate.KIND, rows, {}, "", Location("a.toml"), lambda place: Location("/".join(map(str, place))))
    return [f"{problem.what} at {problem.where}" for problem in missing_inputs([step], root)]


def test_a_pattern_that_no_file_matches_is_told_before_anything_runs(root: Path):
    (root / "data/rows.jsonl").write_text("", "utf-8")
    assert patterns(root, "data/*.jsonl", "nowhere/*.jsonl", "data/rows.json") == [], "a folder that is not there is an input that is not"
    assert patterns(root, "data/*.jsonl", "data/*.jsonz", str(root / "data/[a-c]*")) == [
        "no file matches data/*.jsonz at source/path/1",
        f"no file matches {root}/data/[a-c]* at source/path/2",
    ]


def test_a_link_to_a_spec_that_leads_nowhere_is_an_error_and_one_that_leads_somewhere_a_spec(root: Path):
    (root / "specs/mine.toml").write_text("", "utf-8")
    (root / "specs/.#mine.toml").symlink_to("somebody@somewhere.1234")  # the lock of an editor
    elsewhere = root.parent / "else.toml"
    (root / "specs/linked.toml").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"broken link: specs/linked\.toml -> .*else\.toml") as caught:
        Workspace.at(root).spec_paths()
    assert caught.value.problems[0].where == Location("specs/linked.toml")
    elsewhere.write_text("", "utf-8")
    workspace = Workspace.at(root)
    assert [path.name for path in workspace.spec_paths()] == ["linked.toml", "mine.toml"]
    assert select([Path("specs/linked.toml")], workspace) == select([elsewhere], workspace) == (root / "specs/linked.toml",)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("data/r.jsonl", "data/r.jsonl.dvc"),
        ("data/deep/r.jsonl", "data.dvc"),
        ("data/deep/r.jsonl", "data/deep.dvc"),
        ("models/tiny", "models/tiny.dvc"),
        ("models/tiny/tokenizer.json", "models/tiny.dvc"),
        ("templates/c.jinja", "templates.dvc"),
        ("data/with space.jsonl", "data/with space.jsonl.dvc"),
    ],
)
def test_what_dvc_tracks_is_checked_out_or_pulled(root: Path, path: str, kept: str):
    (root / kept).parent.mkdir(parents=True, exist_ok=True)
    (root / kept).write_text("outs:\n- md5: 0\n  path: x\n", "utf-8")
    (root / "README.md").write_text(f"{path} data/", "utf-8")
    wanted = f"'{kept}'" if " " in kept else kept
    way = f"run: dvc checkout {wanted}, or dvc pull {wanted} if it is not in the cache"
    assert hint(root, path) == f"DVC tracks it; {way}"


def test_a_pattern_below_a_folder_that_dvc_tracks(root: Path):
    (root / "data/raw").mkdir()
    (root / "data/raw.dvc").write_text("outs: []\n", "utf-8")
    rows = generate.Parameters(source=Jsonl(path="data/raw/*.jsonl"), prompts=("{{ q }}",), teacher=Gold(column="a"))
    step = Step("generate-a", generate.KIND, rows, {}, "", Location("a.toml"), lambda place: Location("a.toml"))
    (problem,) = missing_inputs([step], root)
    assert problem.what == "no file matches data/raw/*.jsonl" and "dvc checkout data/raw.dvc" in problem.hint


def test_files_of_a_pattern_or_a_model_that_are_not_pulled_are_told_of(root: Path):
    (root / "data/a.jsonl").write_text("", "utf-8")
    for pointer in ("data/b.jsonl.dvc", "data/notes.txt.dvc", "data/a.jsonl.dvc"):
        (root / pointer).write_text("outs: []\n", "utf-8")
    rows = generate.Parameters(source=Jsonl(path="data/*.jsonl"), prompts=("{{ q }}",), teacher=Gold(column="a"))
    reads = {"source": Input("data", where=Location("a.toml", 1))}
    step = Step("generate-a", generate.KIND, rows, reads, "", Location("a.toml"), lambda place: Location("a.toml"))
    (problem,) = missing_inputs([step], root)
    assert problem.what == "file not found: data/b.jsonl, which belongs to data/*.jsonl" and "dvc pull data/b.jsonl.dvc" in problem.hint
    (root / "data/b.jsonl").write_text("", "utf-8")
    assert missing_inputs([step], root) == []
    (root / "models/tiny").mkdir(parents=True)
    (root / "models/tiny/model.safetensors.dvc").write_text("outs: []\n", "utf-8")
    asked = Step("split-a", split.KIND, split.Parameters(), {"model": Input("models/tiny", where=Location("a.toml", 2))}, "", Location("a"))
    (problem,) = missing_inputs([asked], root)
    assert problem.what == "file not found: models/tiny/model.safetensors, which belongs to models/tiny"
    assert problem.where == Location("a.toml", 2)


def model_hint(root: Path, path: str, role: str = "model") -> str:
    reads = {role: Input(path, where=Location("specs/a.toml", 3, 5)), "tokenizer/tokenizer.json": Input(f"{path}/tokenizer.json")}
    (problem,) = missing_inputs([Step("split-a", split.KIND, split.Parameters(), reads, "", Location("specs/a.toml"))], root)
    assert problem.what == f"folder not found: {path}", "the files inside are reported with their folder"
    return problem.hint or ""


@pytest.mark.parametrize("role", ["model", "teacher"])
@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-0.5B", "tiiuae/falcon-7b", "meta-llama/Llama-3.2-1B"])
def test_a_path_that_looks_like_a_hub_id_is_told_of_id(root: Path, path: str, role: str):
    said = model_hint(root, path, role)
    assert said.startswith(f"'{path}' looks like a hub id") and f'id = "{path}"' in said and "revision" in said
    (root / path).parent.mkdir()
    assert "hub" not in model_hint(root, path, role), "a folder of the workspace has this name"


@pytest.mark.parametrize("start", ["https://huggingface.co/", "http://hf.co/", "huggingface.co/", "https://www.huggingface.co/", "hf://"])
@pytest.mark.parametrize("end", ["", "/", "/tree/main", "/blob/main/config.json"])
def test_an_address_of_the_hub_is_told_of_the_id_in_it(root: Path, start: str, end: str):
    path = str(PurePosixPath(f"{start}Qwen/Qwen2.5-0.5B{end}"))
    said = model_hint(root, path)
    assert "looks like a" in said and 'id = "Qwen/Qwen2.5-0.5B"' in said and "revision" in said


@pytest.mark.parametrize("path", ["models", "/models/tiny", "models/deep/tiny", "./models/tiny", "../models/tiny"])
def test_other_paths_are_no_hub_ids(root: Path, path: str):
    assert "hub" not in model_hint(root, path)


def test_a_path_of_data_is_no_hub_id(root: Path):
    assert hint(root, "corpus/rows.jsonl") == ALONE
