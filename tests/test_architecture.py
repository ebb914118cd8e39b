"""The architecture's contracts: who may import whom, what stays light, and where behaviour may live.

A room is a folder of `engine` or `stages`, or a module at their top. The floors are not written down anywhere: they follow from the
imports, and imports that would close a circle between rooms are refused, those inside functions too.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "peft", "datasets", "tokenizers", "deepspeed", "bitsandbytes", "accelerate", "numpy", "dvc", "jinja2"}
SOURCES = sorted(p.relative_to(ROOT) for package in ("engine", "stages") for p in (ROOT / package).rglob("*.py"))
SHARED = {p.parts[1] for p in SOURCES if p.parts[0] == "stages" and len(p.parts) > 2} - {
    p.parts[1] for p in SOURCES if p.parts[0] == "stages" and p.name == "body.py"
}
"""The rooms of `stages` that are no kind of step."""
LONGEST_CHAIN = 8
"""The number of modules on the longest way along imports. docs/explanation/architecture.md says what each further level would cost."""


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = parsed(path)
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@cache
def imported(path: Path, in_functions: bool = True) -> set[str]:
    """The modules of ours that PATH imports, but for names that only types need; IN_FUNCTIONS: also when a function runs."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                continue
            if not in_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names if alias.name in MODULES)
            elif isinstance(child, ast.ImportFrom) and child.module:
                members = {f"{child.module}.{alias.name}" for alias in child.names}
                found.update({name if name in MODULES else child.module for name in members} & MODULES.keys())
            visit(child)

    visit(parsed(path))
    return found - {module_name(path)}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """A circle for each group of nodes that reach each other in GRAPH."""
    found, done = [], set()

    def visit(name: str, chain: tuple[str, ...]) -> None:
        if name in chain:
            found.append((*chain[chain.index(name) :], name))
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, (*chain, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return found


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """The longest path through GRAPH, which has no circle."""

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max((chain(other) for other in sorted(graph[name])), key=len, default=()))

    return list(max((chain(name) for name in sorted(graph)), key=len))


def ours(path: Path, top_level_only: bool = False) -> set[str]:
    return {name for name in imports(path, top_level_only) if name.split(".")[0] in ("engine", "stages")}


def test_light_verbs_import_neither_torch_nor_a_body():
    modules = (
        "engine.cli.main engine.plan.project engine.plan.step_estimates engine.results.table engine.cli.render engine.spec.schema "
        "engine.spec.explain stages.kinds"
    )
    code = f"import sys, {', '.join(modules.split())}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}
    assert not [name for name in loaded if name.startswith("stages.") and name.endswith(".body")]


def test_the_lowest_room_imports_nothing_of_other_rooms():
    for path in SOURCES:
        if path.parts[:2] == ("engine", "core"):
            assert {room(name) for name in imported(path)} <= {"engine.core"}, path


def test_the_rooms_form_floors():
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        graph.setdefault(room(module), set()).update(room(name) for name in imported(path))
    assert not circles({name: others - {name, name.split(".")[0]} & graph.keys() for name, others in graph.items()})


def test_only_render_imports_rich():
    found = [p for p in SOURCES if p.parts[0] == "engine" and any(i.split(".")[0] == "rich" for i in imports(p))]
    assert found and all(p.parts[1] == "cli" and p.name.startswith("render") for p in found)


def test_yaml_is_read_in_two_places():
    assert [str(p) for p in SOURCES if p.parts[0] == "engine" and any(i.split(".")[0] == "yaml" for i in imports(p))] == [
        "engine/dvc/dvcfile.py",
        "engine/importing/documents.py",
    ]


def test_the_page_on_the_architecture_names_every_room():
    page = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    kinds = {f"stages/{p.parts[1]}" for p in SOURCES if p.parts[0] == "stages" and p.name == "body.py"}
    rooms = {"/".join(p.parts[:2]) for p in SOURCES if len(p.parts) > 2} - kinds
    assert not [name for name in rooms if f"`{name}`" not in page]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[0] == "stages" and len(p.parts) > 2], ids=str)
def test_a_kind_imports_no_other_kind_and_nothing_of_the_engine_but_parts_and_errors(path: Path):
    allowed = ({f"stages.{name}" for name in SHARED} | {f"stages.{path.parts[1]}", "engine.core"}) - {"stages.kinds"}
    # Answers are scored by the metrics of evaluations, and by no others.
    measures = ("stages.evaluate.metrics", "stages.evaluate.judgements") if path.parts[1] == "pair" else ()
    strangers = [name for name in imported(path) if room(name) not in allowed and not name.startswith(measures)]
    assert not strangers
    assert {name for name in imported(path) if room(name) == "engine.core"} <= {"engine.core.part", "engine.core.errors"}


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
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            decorators = {ast.unparse(d).partition("(")[0] for d in getattr(node, "decorator_list", [])}
            assert decorators & {"field_validator", "model_validator"}, f"{path} defines {getattr(node, 'name', 'a lambda')}"


def test_no_import_cycles():
    # A package's __init__ imports its members, and importing a member runs the __init__ first: that is how packages work.
    graph = {module: {name for name in imported(path) if not module.startswith(f"{name}.")} for module, path in MODULES.items()}
    assert not circles(graph)


def test_a_module_can_be_understood_with_few_others():
    """Whoever reads a module follows its imports: the longest way down must stay short (imports that a function delays are left out)."""
    graph = {
        module: {name for name in imported(path, in_functions=False) if not module.startswith(f"{name}.")}
        for module, path in MODULES.items()
    }
    chain = longest_chain(graph)
    assert len(chain) <= LONGEST_CHAIN, "\n  imports ".join(chain)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_says_what_it_is(path: Path):
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"


def test_no_pickle_and_no_remote_code():
    for path in SOURCES:
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        assert "trust_remote_code=True" not in (ROOT / path).read_text(), path
