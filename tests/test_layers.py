"""The architecture: no circle of imports, short chains, small folders, and what each package may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("transformers", "timm", "faiss", "torchvision", "torchaudio", "pandas")

# From the ground up: a room may import its own row and the rows above it in this list.
LAYERS = [
    {"errors", "files", "array_types", "deprecation"},
    {"schema", "types", "registry", "boxes"},
    {"attention"},
    {"data"},
    {"evaluation", "retrieval"},
    {"config"},
    {"encoders"},
    {"fusion"},
    {"heads"},
    {"model"},
    {"export"},
    {"training"},
    {"recommenders"},
    {"serving", "reports"},
    {"experiments"},
    {"explain"},
    {"testing"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# Rooms that depend on little: arrays in, numbers out; and a library of its own.
ONLY = {
    "evaluation": {"errors", "files", "array_types", "schema", "boxes", "data"},
    "retrieval": {"errors", "files", "array_types", "schema", "data"},
}
MOST_FILES = 20
LONGEST_CHAIN = 20


def _modules() -> dict[str, Path]:
    results = {}
    for path in sorted((ROOT / "mmattn").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        results[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return results


MODULES = _modules()


def imports(name: str, *, lazy: bool) -> set[str]:
    """Modules of mmattn that a module imports: on being imported itself, or (`lazy`) anywhere in it.

    Args:
        name: the importing module.
        lazy: count imports inside functions, and those for type checkers, too.
    """
    actual: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if not lazy and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if not lazy and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                actual.update(alias.name for alias in child.names if alias.name in MODULES)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    actual.update({inner if inner in MODULES else child.module} & MODULES.keys())
            visit(child)

    visit(ast.parse(MODULES[name].read_text(encoding="utf-8")))
    return actual - {name}


def test_no_module_needs_one_that_needs_it() -> None:
    graph = {name: imports(name, lazy=True) for name in MODULES}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def connect(node: str) -> None:  # Tarjan's strongly connected components
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                connect(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = [stack.pop()]
            while part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                circles.append(sorted(part))

    for name in graph:
        if name not in index:
            connect(name)
    assert circles == []


def test_no_chain_of_imports_is_long() -> None:
    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max((chain(other) for other in imports(name, lazy=False)), key=len, default=()))

    longest = max(map(chain, MODULES), key=len)
    assert len(longest) <= LONGEST_CHAIN, " > ".join(longest)


def test_no_folder_holds_many_files() -> None:
    counts: dict[Path, int] = {}
    for path in MODULES.values():
        counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "mmattn"])
def test_a_room_imports_only_what_stands_below_it(name: str) -> None:
    room = name.split(".")[1]
    assert room in RANK, f"{room} has no place in the order"
    others = {other.split(".")[1] for other in imports(name, lazy=True) if "." in other} - {room}
    assert not {other for other in others if RANK[other] > RANK[room]}
    if room in ONLY:
        assert others <= ONLY[room]


@pytest.mark.parametrize("module", ["mmattn", "mmattn.cli", "mmattn.attention", "mmattn.fusion.core"])
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_the_public_names_are_there() -> None:
    import mmattn

    for name in mmattn.__all__:
        assert getattr(mmattn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Tokenz'"):
        mmattn.Tokenz  # noqa: B018
