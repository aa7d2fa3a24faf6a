"""A directory is a layer: walks the imports of llmproxy/ and fails on any that the layer table does not allow."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import llmproxy

PACKAGE = Path(llmproxy.__file__).parent

# Room -> rooms it may import. "app" stands for the modules at the top: the composition root and what belongs to it.
ALLOWED = {
    "core": set(),
    "config": {"core"},
    "wire": {"core"},
    "stores": {"core"},
    "telemetry": {"core"},
    "auth": {"stores", "core"},
    "policy": {"core"},
    "sim": {"policy", "config", "core"},
    "emulator": {"sim", "core"},
    "calibrate": {"sim", "control", "core"},
    "pipeline": {"auth", "wire", "policy", "stores", "telemetry", "config", "core"},
    "control": {"policy", "stores", "telemetry", "config", "core"},
    "admin": {"control", "core"},
}
# The composition root, and only it and the command, knows every room.
EVERYTHING = {*ALLOWED, "app"}
ALLOWED |= {"app": EVERYTHING, "cli": EVERYTHING}

STANDARD_LIBRARY_ONLY = {"core", "policy", "sim"}
WITHOUT_EVENT_LOOP = {"core", "policy", "sim", "auth"}
EVENT_LOOPS = {"asyncio", "uvloop", "selectors", "socket", "threading", "concurrent"}
CLOCKS_AND_CHANCE = {"time", "datetime", "secrets"}
# Calendar arithmetic over a time that is an argument: these may know `datetime`'s values, and never ask it for now.
CALENDARS = {"policy/scaling/cron.py"}


class Import(NamedTuple):
    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports(root: Path) -> Iterator[Import]:
    """Every import in the files under `root` (the directory of the package llmproxy), wherever in the file it stands.

    `from a import b` counts as `a.b`: b may be a module.
    """
    for file in sorted(root.rglob("*.py")):
        inside = file.relative_to(root)
        package = ["llmproxy", *inside.parent.parts]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(inside, node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                base = [*base, *(node.module.split(".") if node.module else [])]
                for alias in node.names:
                    yield Import(inside, node.lineno, ".".join([*base, alias.name]))


def room_of(file: Path) -> str:
    if len(file.parts) > 1:
        return file.parts[0]
    # `python -m llmproxy` is the command by another name.
    return "cli" if file.name == "__main__.py" else "app"


def target_of(module: str, root: Path) -> str | None:
    """The room that `module` is in; None when it is not ours, or is only a name of the package itself (__version__)."""
    first, _, rest = module.partition(".")
    if first != "llmproxy":
        return None
    name = rest.partition(".")[0]
    if (root / name).is_dir() and name:
        return name
    return "app" if (root / f"{name}.py").is_file() else None


def violations(root: Path) -> list[str]:
    found = []
    for item in imports(root):
        room, target = room_of(item.file), target_of(item.module, root)
        if room not in ALLOWED:
            found.append(f"{item.file}: room {room} is not in the layer table")
        elif item.file.parts == ("__init__.py",):
            found.append(f"{item}: the package itself imports nothing")
        elif target is not None and target != room and target not in ALLOWED[room]:
            found.append(f"{item}: {room} may not import {target}")
        elif target is None and not item.module.startswith("llmproxy"):
            found.extend(_foreign(item, room))
        elif room == target == "policy" and _policy_of(item.module) not in (None, item.file.parts[1]):
            found.append(f"{item}: no policy package imports another")
    return found


def _policy_of(module: str) -> str | None:
    """`routing` for llmproxy.policy.routing.registry."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 else None


def _foreign(item: Import, room: str) -> Iterator[str]:
    """What a room may not take from outside the package."""
    top = item.module.partition(".")[0]
    if room in STANDARD_LIBRARY_ONLY and top not in sys.stdlib_module_names:
        yield f"{item}: {room} uses the standard library only"
    if room in WITHOUT_EVENT_LOOP and top in EVENT_LOOPS:
        yield f"{item}: asyncio and threads live in drivers, not in {room}"
    if room in WITHOUT_EVENT_LOOP and top in CLOCKS_AND_CHANCE and str(item.file) not in CALENDARS:
        yield f"{item}: time and chance are arguments in {room}"


def test_no_import_crosses_a_layer():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize("file", sorted(CALENDARS))
def test_a_calendar_does_not_ask_what_time_it_is(file):
    tree = ast.parse((PACKAGE / file).read_text())
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert asked & {"now", "utcnow", "today", "time"} == set()


def test_the_walk_sees_the_imports_there_are():
    seen = {(str(item.file), item.module) for item in imports(PACKAGE)}
    assert ("policy/routing/registry.py", "llmproxy.policy.routing.ip_hash.IpHash") in seen
    assert ("core/pool.py", "llmproxy.core.ports.HealthRegistry") in seen
    assert len(seen) > 200


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("core/x.py", "import msgspec", "core uses the standard library only"),
        ("core/x.py", "from llmproxy.config import model", "core may not import config"),
        ("core/x.py", "import asyncio", "live in drivers"),
        ("policy/health/x.py", "import asyncio.events", "live in drivers"),
        ("policy/health/x.py", "from time import monotonic", "are arguments in policy"),
        ("policy/health/x.py", "import pydantic", "policy uses the standard library only"),
        (
            "policy/health/x.py",
            "from llmproxy.policy.routing.base import Unlearning",
            "no policy package imports another",
        ),
        ("policy/health/x.py", "from llmproxy.policy import routing", "no policy package imports another"),
        ("policy/health/x.py", "from ..routing import base", "no policy package imports another"),
        ("policy/health/x.py", "from ...wire import fields", "policy may not import wire"),
        ("policy/health/x.py", "from llmproxy import config", "policy may not import config"),
        ("policy/x.py", "from llmproxy.policy.routing import base", "no policy package imports another"),
        ("wire/x.py", "def f():\n    import llmproxy.config.model", "wire may not import config"),
        ("config/x.py", "if TYPE_CHECKING:\n    from llmproxy.policy.health import registry", "may not import policy"),
        ("sim/x.py", "from llmproxy.emulator import server", "sim may not import emulator"),
        ("sim/x.py", "from llmproxy.pipeline import handler", "sim may not import pipeline"),
        ("emulator/x.py", "from llmproxy.policy.routing import base", "emulator may not import policy"),
        ("pipeline/x.py", "from llmproxy.control import prober", "pipeline may not import control"),
        ("control/x.py", "from llmproxy.wire import fields", "control may not import wire"),
        ("admin/x.py", "from llmproxy.policy.health import registry", "admin may not import policy"),
        ("pipeline/x.py", "from llmproxy.app import App", "pipeline may not import app"),
        ("app.py", "from llmproxy.cli import main", "app may not import cli"),
        ("misc/x.py", "import os", "room misc is not in the layer table"),
        ("__init__.py", "from llmproxy import app", "the package itself imports nothing"),
    ],
)
def test_an_arrow_that_is_not_allowed_is_found(tmp_path, file, line, complaint):
    for room in (*ALLOWED, "policy/routing", "policy/health", "misc"):
        if room != "app":
            (tmp_path / room).mkdir(exist_ok=True)
    (tmp_path / "app.py").touch()
    (tmp_path / file).write_text(line)
    [found] = violations(tmp_path)
    assert complaint in found
    assert found.startswith(file)


def test_arrows_that_are_allowed_are_not(tmp_path):
    for room in (*ALLOWED, "policy/routing"):
        (tmp_path / room).mkdir(exist_ok=True)
    for room, targets in ALLOWED.items():
        if room != "app":
            lines = [f"import llmproxy.{target}.x" for target in targets] + ["from llmproxy import __version__"]
            (tmp_path / room / "x.py").write_text("\n".join(lines))
    (tmp_path / "policy" / "routing" / "y.py").write_text("import random\nfrom llmproxy.policy.routing import base")
    (tmp_path / "pipeline" / "y.py").write_text("import asyncio, msgspec\nfrom llmproxy.policy.routing import base")
    assert violations(tmp_path) == []
