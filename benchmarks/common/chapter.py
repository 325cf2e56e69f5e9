"""The parts of a chapter that are made from results: what stands between two markers, and how figures are written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

QUIET_CORES = 0.1
"""Other work that still leaves images a second meaningful."""


def update(chapter: Path, blocks: Mapping[str, str]) -> None:
    """Replaces each block of the chapter, by name."""
    text = chapter.read_text(encoding="utf-8")
    for name, block in blocks.items():
        text = replace_block(text, name, block)
    chapter.write_text(text, encoding="utf-8")


def replace_block(text: str, name: str, block: str) -> str:
    """``text`` with another content between the markers ``<!-- figures: NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: they aren't there once.
    """
    marked = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    replaced, found = marked.subn(lambda match: f"{match[1]}{block}\n{match[2]}", text)
    if found != 1:
        raise ValueError(f"expected the markers of {name!r} once; found {found}")
    return replaced


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines)


def ranged(figure: Mapping[str, float], spec: str) -> str:
    """``median (least-most)``."""
    return f"{figure['median']:{spec}} ({figure['min']:{spec}}-{figure['max']:{spec}})"
