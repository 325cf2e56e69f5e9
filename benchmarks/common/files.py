"""Where pictures, results and chapters are, and how results are written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shoal.errors import ConfigurationError
from shoal.runtime.files import replace_file

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
RESULTS = ROOT / "benchmarks" / "results"
SAMPLES = ROOT / "samples"


def jpegs(folder: Path = SAMPLES) -> list[Path]:
    """The JPEGs of ``folder``, in the order of their names.

    Raises:
        ConfigurationError: there is none.
    """
    found = sorted(folder.glob("*.jp*g"))
    if not found:
        raise ConfigurationError(f"--images {folder}: there is no JPEG")
    return found


def read_pictures(folder: Path = SAMPLES) -> list[bytes]:
    """What ``jpegs`` finds, read."""
    return [path.read_bytes() for path in jpegs(folder)]


def write_json(path: Path, value: Any) -> None:  # any JSON value
    """Writes all or nothing: whoever reads the file never finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(value, indent=2) + "\n", mode=None)


def read_json(path: Path) -> dict[str, Any] | None:
    """What was written; None if nothing was."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def read_result(name: str) -> dict[str, Any]:
    """The result ``name`` of benchmarks/results.

    Raises:
        ConfigurationError: it isn't there.
    """
    found = read_json(RESULTS / f"{name}.json")
    if found is None:
        raise ConfigurationError(f"results/{name}.json is missing; measure it first: benchmarks/README.md")
    return found
