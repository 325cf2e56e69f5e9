"""What ``make setup`` installs: every package at one version, and no file but those that are listed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def _listed() -> dict[str, list[str]]:
    """Name to hashes."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        requirement, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
        pinned = Requirement(requirement)
        assert [part.operator for part in pinned.specifier] == ["=="], line
        found[canonicalize_name(pinned.name)] = hashes
    assert len(found) == len(lines), "each once"
    return found


def test_every_package_has_the_hashes_of_its_files() -> None:
    wrong = {
        name
        for name, hashes in _listed().items()
        if not hashes or not all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)
    }
    assert wrong == set()


def test_what_the_project_names_and_what_builds_it_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    named = [
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        *(one for extra in extras for one in extra),
    ]
    wanted = {canonicalize_name(Requirement(text).name) for text in named} - {"shoal"}
    assert wanted - _listed().keys() == set()


def test_setup_checks_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes --requirement constraints.txt" in makefile
    assert "--no-deps --no-build-isolation --editable ." in makefile
