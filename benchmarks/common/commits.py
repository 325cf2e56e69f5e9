"""Another commit's code, to compare this tree with."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def unpacked(commit: str, folder: Path) -> Path:
    """Writes the packages of ``commit`` below ``folder``; answers what PYTHONPATH needs."""
    archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder / "src"
