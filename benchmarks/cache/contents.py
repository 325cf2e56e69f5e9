"""Pictures that differ in their bytes and not in their pixels: JPEGs with a number behind their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common.files import read_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator


def distinct(first: int = 0) -> Iterator[bytes]:
    """The sample photographs in turn, each with a number that no other has, from ``first`` on; without an end."""
    photographs = read_pictures()
    number = first
    while True:
        yield photographs[number % len(photographs)] + number.to_bytes(8, "big")
        number += 1
