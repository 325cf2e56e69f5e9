"""Writes constraints.txt: the installed version of each package that ``shoal[dev]`` needs, and of what those need."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

TARGET = Path(__file__).resolve().parent.parent / "constraints.txt"
HEADER = """\
# The versions that the tests ran with, on Python 3.11; all have wheels for 3.12 and 3.13 too.
# 'make constraints' writes it anew from the environment that is there.
"""


def closure(package: str, extras: frozenset[str] = frozenset()) -> dict[str, str]:
    """Name to version of all that ``package`` with ``extras`` needs, itself included."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    wanted = [(_normal(package), extras)]
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found[name] = metadata.version(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if _applies(requirement, extras):
                wanted.append((_normal(requirement.name), frozenset(requirement.extras)))
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """The command line."""
    versions = closure("shoal", frozenset({"dev"}))
    del versions["shoal"]
    TARGET.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items())))


if __name__ == "__main__":
    main()
