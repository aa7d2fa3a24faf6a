"""No modules import each other in a circle, not even for types: each can be read once those below it have been."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llmproxy

PACKAGE = Path(llmproxy.__file__).parent


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module under `root` (the directory of the package llmproxy)."""
    found = {}
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(["llmproxy", *(parts[:-1] if parts[-1] == "__init__" else parts)])] = file
    return found


def arrows(root: Path) -> dict[str, set[str]]:
    """Module -> the modules it imports, wherever in the file that stands."""
    known = modules(root)
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        targets = found[name] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                module = ".".join(base).rstrip(".") if node.level else node.module or ""
                # `from a import b`: b may be a module.
                inside = {f"{module}.{alias.name}" for alias in node.names}
                targets |= inside & known.keys()
                if not inside <= known.keys():
                    targets.add(module)
        targets &= known.keys()
    return found


def test_there_are_none():
    TopologicalSorter(arrows(PACKAGE)).prepare()


def test_the_walk_sees_the_imports_there_are():
    seen = arrows(PACKAGE)
    assert {"llmproxy.wire.refusals", "llmproxy.wire.flow"} <= seen["llmproxy.wire.intake"]
    assert "llmproxy.sim" in seen["llmproxy.emulator.choice"]


@pytest.mark.parametrize(
    "line",
    [
        "import llmproxy.a",
        "from llmproxy.a import A",
        "from llmproxy import a",
        "from .a import A",
        "from . import a",
        "if TYPE_CHECKING:\n    from llmproxy.a import A",
        "def f():\n    from llmproxy.a import A",
    ],
)
def test_a_circle_is_found(tmp_path, line):
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text("from llmproxy.b import B")
    (tmp_path / "b.py").write_text(line)
    with pytest.raises(CycleError):
        TopologicalSorter(arrows(tmp_path)).prepare()
