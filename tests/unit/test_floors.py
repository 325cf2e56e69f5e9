"""The house's floors: a folder of ``src/shoal`` is a room, whose docstring names the rooms that it may use.

So no import goes up, and there is no circle, neither of rooms nor of files. Imports for types alone count.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import shoal

HOUSE = Path(shoal.__file__).parent
FILES = {path: ast.parse(path.read_text()) for path in HOUSE.rglob("*.py")}
ROOMS = {path.parent: str(ast.get_docstring(tree)) for path, tree in FILES.items() if path.name == "__init__.py"}


def file_of(module: str) -> Path | None:
    path = HOUSE.parent.joinpath(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found in FILES), None)


def imports(path: Path) -> set[Path]:
    found: set[Path | None] = set()
    for node in ast.walk(FILES[path]):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            found |= {file_of(f"{module}.{alias.name}") or file_of(module) for alias in node.names}
    return {other for other in found if other and other != path}


def room(path: Path) -> str:
    """A folder's name below ``shoal``; of what lies beside the folders, the module's own."""
    return path.relative_to(HOUSE).parent.as_posix() if path.parent != HOUSE else path.stem


def test_every_room_uses_those_alone_that_it_names() -> None:
    for path in FILES:
        if path.parent == HOUSE:
            continue
        line = re.search(r"^May use: ([^.]*)\.$", ROOMS[path.parent], re.MULTILINE)
        assert line, f"{path.parent}: its docstring names no rooms: 'May use: errors, runtime.'"
        allowed = {room(path), "__init__", *re.split(r",\s+", line[1])}
        up = {str(other.relative_to(HOUSE)) for other in imports(path) if room(other) not in allowed}
        assert not up, f"{path.relative_to(HOUSE)} imports what its room doesn't name"


def test_no_room_names_one_that_it_never_uses() -> None:
    for folder, text in ROOMS.items():
        used = {room(other) for path in FILES if path.parent == folder for other in imports(path)}
        named = re.search(r"^May use: ([^.]*)\.$", text, re.MULTILINE)
        assert set(re.split(r",\s+", named[1] if named else "nothing")) <= used | {"nothing"}, folder


def test_there_is_no_circle_of_files_or_of_rooms() -> None:
    TopologicalSorter({path: imports(path) for path in FILES}).prepare()
    rooms: dict[str, set[str]] = {}
    for path in FILES:
        rooms.setdefault(room(path), set()).update({room(other) for other in imports(path)} - {room(path)})
    TopologicalSorter(rooms).prepare()


def test_beside_the_rooms_lie_errors_alone() -> None:
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}
