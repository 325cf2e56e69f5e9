"""Writes constraints.txt: the version of each package that ``shoal[dev]`` needs, and the hashes of its files.

The versions are those that are installed here, of what builds the project too. uv asks the index for the hashes of
every file of them, so that one list does for each platform and Python that there are wheels for, with a marker where a
package is for some of them alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
OLDEST_PYTHON = "3.11"
HEADER = """\
# The versions that the tests ran with, on Python 3.11, and the hashes of their files; all have wheels for 3.12 and 3.13
# too. 'make constraints' writes it anew from the environment that is there.
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


def hashed(versions: dict[str, str]) -> str:
    """The lines of a requirements file with ``versions`` and the hashes of their files, those of ``shoal[dev]``.

    Raises:
        subprocess.CalledProcessError: uv can't resolve that, or the index is away; it says why itself.
    """
    builders = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as scratch:
        pins, others = Path(scratch) / "pins.txt", Path(scratch) / "build.in"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
        others.write_text("".join(f"{builder}\n" for builder in builders), encoding="utf-8")
        options = ("--universal", "--generate-hashes", "--no-annotate", "--no-header", "--quiet", "--no-config")
        made = subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", *options, "--python-version", OLDEST_PYTHON,
             "--extra", "dev", "--constraint", pins, ROOT / "pyproject.toml", others],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    return made.stdout


def main() -> None:
    """The command line."""
    versions = closure("shoal", frozenset({"dev"}))
    del versions["shoal"]
    TARGET.write_text(HEADER + hashed(versions), encoding="utf-8")


if __name__ == "__main__":
    main()
