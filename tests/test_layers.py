"""The shape of the house: imports never run backwards, and `import mmattn` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module may import from its own row and from the rows above it in this list.
LAYERS = [
    {"errors", "files"},
    {"schema", "types", "registry", "boxes", "weights"},
    {"config"},
    {"attention"},
    {"task_config"},
    {"data"},
    {"encoders"},
    {"fusion"},
    {"heads"},
    {"model", "build", "pretrained", "tower"},
    {"export"},
    {"training"},
    {"retrieval"},
    {"serving"},
    {"evaluation"},
    {"testing"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
HEAVY = ("transformers", "timm", "faiss", "torchvision", "torchaudio", "pandas")


def imported(path: Path) -> set[str]:
    """First-level parts of mmattn that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mmattn":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("mmattn.")}
    return found & set(RANK)


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "mmattn").parts[0].removesuffix(".py")


FILES = sorted(path for path in (ROOT / "mmattn").rglob("*.py") if path.parent.name != "templates")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_never_run_backwards(path: Path) -> None:
    own = part_of(path)
    if own == "__init__":
        return  # the lazy public names
    assert own in RANK, f"{own} has no place in the order"
    backwards = {name for name in imported(path) if RANK[name] > RANK[own]}
    # Building a saved model again is the one loop, between two files of one layer.
    assert not backwards, f"{path.relative_to(ROOT)} imports {backwards}, which stand above {own}"


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
