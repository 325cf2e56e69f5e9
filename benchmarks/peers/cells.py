"""What is measured, in which order, and what is measured already. No clock, no process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.common.files import read_json, write_json
from benchmarks.peers.pictures import Size
from benchmarks.peers.settings import CELLS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CEILING, SHOAL, SHOAL_WITH_UPLOAD = "ceiling", "shoal", "shoal_with_upload"
CEILING_AFTER = "ceiling_after"
"""The ceiling once more, behind what is put in relation to it."""
OURS = (CEILING, SHOAL, SHOAL_WITH_UPLOAD)
DECODERS = ("shoal", "shown")


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to answer one kind of picture, in one round."""

    round: int
    size: Size
    decoder: str
    """``shown`` in the peers' documentation, or ``shoal``'s."""
    way: str
    """``ceiling``, ``ceiling_after``, ``shoal``, ``shoal_with_upload`` or a peer's name."""

    def __str__(self) -> str:
        return f"round {self.round + 1}, {self.size}, {self.decoder} decoder, {self.way.replace('_', ' ')}"

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.size}-{self.decoder}-{self.way}-{self.round + 1}.json"


def plan(rounds: int, peers: Sequence[str], sizes: Sequence[Size] = tuple(Size)) -> Iterator[Cell]:
    """All cells, in the order in which they are measured.

    A round holds everything once. Within it, what shares pictures and decoder is measured one after the other, between
    two measurements of its ceiling: what the machine does meanwhile shows. Shoal has no other decoder than its own.
    """
    for number in range(rounds):
        for size in sizes:
            for decoder in DECODERS:
                ours = OURS if decoder == "shoal" else (CEILING,)
                for way in (*ours, *peers, CEILING_AFTER):
                    yield Cell(number, size, decoder, way)


class Store:
    """Results of cells. One that was measured under another key counts as missing."""

    def __init__(self, key: dict[str, Any], folder: Path = CELLS) -> None:
        """Prepares for results that are comparable by ``key``: a commit, windows."""
        self._key = key
        self._folder = folder

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The result, if there is one."""
        found = read_json(self._folder / cell.name)
        return None if found is None or found["key"] != self._key else found["result"]

    def write(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keeps a result."""
        write_json(self._folder / cell.name, {"key": self._key, "result": result})
