"""The house's floors: a folder of ``src/shoal`` is a room, whose docstring names the rooms that it may use.

So no import goes up, and there is no circle, neither of rooms nor of files. Imports for types alone count.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import shoal

HOUSE = Path(shoal.__file__).parent
FILES = {path: ast.parse(path.read_text()) for path in HOUSE.rglob("*.py")}
ROOMS = {path.parent: str(ast.get_docstring(tree)) for path, tree in FILES.items() if path.name == "__init__.py"}


def file_of(module: str) -> Path | None:
    path = HOUSE.parent.joinpath(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found in FILES), None)


@cache
def imports(path: Path) -> frozenset[Path]:
    found: set[Path | None] = set()
    for node in ast.walk(FILES[path]):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            found |= {file_of(f"{module}.{alias.name}") or file_of(module) for alias in node.names}
    return frozenset(other for other in found if other and other != path)


def room(path: Path) -> str:
    """A folder's name below ``shoal``; of what lies beside the folders, the module's own."""
    return path.relative_to(HOUSE).parent.as_posix() if path.parent != HOUSE else path.stem


@cache
def arrows() -> dict[str, set[str]]:
    """Each room's others that its files import."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        found.setdefault(room(path), set()).update({room(other) for other in imports(path)} - {room(path)})
    return found


def named(folder: Path) -> set[str]:
    """The rooms that this one's docstring says it may use."""
    line = re.search(r"^May use: ([^.]*)\.$", ROOMS[folder], re.MULTILINE)
    assert line, f"{folder}: its docstring names no rooms: 'May use: errors, runtime.'"
    return set(re.split(r",\s+", line[1])) - {"nothing"}


def test_every_room_uses_those_alone_that_it_names() -> None:
    for path in FILES:
        if path.parent == HOUSE:
            continue
        allowed = {room(path), "__init__"} | named(path.parent)
        up = {str(other.relative_to(HOUSE)) for other in imports(path) if room(other) not in allowed}
        assert not up, f"{path.relative_to(HOUSE)} imports what its room doesn't name"


def test_no_room_names_one_that_it_never_uses() -> None:
    for folder in ROOMS.keys() - {HOUSE}:
        assert named(folder) <= arrows()[folder.relative_to(HOUSE).as_posix()], folder


def test_there_is_no_circle_of_files_or_of_rooms() -> None:
    TopologicalSorter({path: imports(path) for path in FILES}).prepare()
    TopologicalSorter(arrows()).prepare()


def test_beside_the_rooms_lie_errors_alone() -> None:
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}
