"""What the generators of files share: write them, or say which are stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).resolve().parent.parent


def checking(description: str | None) -> bool:
    """The command line's ``--check``: whether nothing is to be changed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is stale")
    return bool(parser.parse_args().check)


def tell_stale(paths: Iterable[Path], target: str) -> None:
    """Exits with 1 where there are any; ``target`` of make brings them up to date."""
    if names := ", ".join(str(path.relative_to(ROOT)) for path in paths):
        sys.exit(f"stale: {names}; run 'make {target}'")


def keep(files: Mapping[Path, str], target: str, *, check: bool, unwanted: Iterable[Path] = ()) -> None:
    """Writes ``files``, path to text, and removes ``unwanted`` ones; with ``check`` tells what isn't so."""
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    unwanted = list(unwanted)
    if check:
        tell_stale((*stale, *unwanted), target)
        return
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    for path in unwanted:
        path.unlink()
