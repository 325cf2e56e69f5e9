"""CONTRIBUTING names every room, from the bottom floor up, and files and functions that there are."""

from __future__ import annotations

import ast
import re

from site_files import ROOT
from test_floors import FILES, HOUSE, arrows

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.+?) \|", TEXT, re.MULTILINE)
NAMED_ROOMS = [name for row in ROWS if ".py" not in row for name in re.findall(r"`([\w/]+)`", row)]
NAMED_PLACES = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", TEXT)


def defined(tree: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name: each for each in tree.body if isinstance(each, kinds)}


def test_every_room_stands_once_in_the_table_below_those_that_it_uses() -> None:
    used = {name: others - {"__init__"} for name, others in arrows().items()}
    assert sorted(NAMED_ROOMS) == sorted(used.keys() - {"__init__", "__main__"})
    for place, name in enumerate(NAMED_ROOMS):
        assert used[name] <= set(NAMED_ROOMS[:place]), name


def test_the_way_of_a_uuid_leads_through_functions_that_there_are() -> None:
    assert len(NAMED_PLACES) >= 20
    for file, name in NAMED_PLACES:
        outer, _, inner = name.partition(".")
        found = defined(FILES[HOUSE / file]).get(outer)
        assert found is not None, f"{file} has no {outer}"
        assert not inner or (isinstance(found, ast.ClassDef) and inner in defined(found)), f"{outer} has no {inner}"


def test_every_file_and_folder_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:src|tests|docs|benchmarks|tools|proto)/[\w./]*)`", TEXT)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
