"""Contracts of the house: who may import whom, what stays light, and where behaviour may live."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "peft", "datasets", "tokenizers", "deepspeed", "bitsandbytes", "accelerate", "numpy", "dvc", "jinja2"}
SOURCES = sorted(p.relative_to(ROOT) for package in ("engine", "stages") for p in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def ours(path: Path, top_level_only: bool = False) -> set[str]:
    return {name for name in imports(path, top_level_only) if name.split(".")[0] in ("engine", "stages")}


def test_light_verbs_import_neither_torch_nor_a_body():
    modules = "engine.cli.app engine.plan.project engine.plan.step_estimates engine.results.table engine.cli.render engine.spec.schema engine.spec.explain stages.kinds"
    code = f"import sys, {', '.join(modules.split())}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}
    assert not [name for name in loaded if name.startswith("stages.") and name.endswith(".body")]


def test_leaves_import_nothing_of_ours():
    assert not ours(Path("engine/core/part.py"))
    assert not ours(Path("engine/core/errors.py"))


def test_only_render_imports_rich():
    found = [p for p in SOURCES if p.parts[0] == "engine" and any(i.split(".")[0] == "rich" for i in imports(p))]
    assert found and all(p.name.startswith("render") for p in found)


def test_only_dvcfile_names_yaml():
    assert [str(p) for p in SOURCES if p.parts[0] == "engine" and any(i.split(".")[0] == "yaml" for i in imports(p))] == [
        "engine/dvc/dvcfile.py"
    ]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[0] == "stages" and len(p.parts) > 2 and p.parts[1] != "common"], ids=str)
def test_a_kind_imports_its_own_kind_common_and_the_leaves_only(path: Path):
    kind = f"stages.{path.parts[1]}"
    allowed = (kind, "stages.common", "engine.core.part", "engine.core.errors")
    strangers = [name for name in ours(path) if not any(name == a or name.startswith(f"{a}.") for a in allowed)]
    assert not strangers


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[0] == "stages" and p.name != "body.py"], ids=str)
def test_heavy_imports_of_stages_live_in_bodies_or_functions(path: Path):
    if path.name == "__init__.py" or "body" not in path.name:
        light = path.name == "__init__.py" or path.parts[-2] in (
            "sources",
            "teachers",
            "formats",
            "masks",
            "samplers",
            "methods",
            "batching",
            "metrics",
            "architectures",
        )
        if light:
            assert not HEAVY & {name.split(".")[0] for name in imports(path, top_level_only=True)}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[0] == "stages" and p.name == "__init__.py"], ids=str)
def test_declarations_hold_no_behaviour(path: Path):
    """The code digest of a step leaves packages' __init__ files out, so nothing that decides a result may live there."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            decorators = {ast.unparse(d).partition("(")[0] for d in getattr(node, "decorator_list", [])}
            assert decorators & {"field_validator", "model_validator"}, f"{path} defines {getattr(node, 'name', 'a lambda')}"


def test_no_import_cycles():
    names = {module_name(p) for p in SOURCES}
    graph = {module_name(p): {n for n in ours(p, top_level_only=True) if n in names} for p in SOURCES}
    done: set[str] = set()

    def visit(name: str, chain: tuple[str, ...]) -> None:
        assert name not in chain, f"import cycle: {' -> '.join((*chain, name))}"
        if name not in done:
            for other in graph[name]:
                # A package's __init__ imports its members, and importing a member runs the __init__ first: that is how packages work.
                if not name.startswith(f"{other}."):
                    visit(other, (*chain, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_says_what_it_is(path: Path):
    tree = ast.parse((ROOT / path).read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"


def test_no_pickle_and_no_remote_code():
    for path in SOURCES:
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        assert "trust_remote_code=True" not in (ROOT / path).read_text(), path
