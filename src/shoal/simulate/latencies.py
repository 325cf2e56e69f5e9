"""Any number of latencies in bounded memory: each of them, or how many lie in each bucket.

Buckets have equal ratios, as those of DDSketch (Masson, Rim, Lee, VLDB 2019): what is told of them is off by at most
``ERROR`` of itself, however they are distributed.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

EXACT: Final = 1_000_000
"""So many are kept as they are, 8 bytes each."""
ERROR: Final = 0.001
_STEP: Final = math.log((1 + ERROR) / (1 - ERROR))
_LEAST: Final = 1e-9
"""Seconds: what is shorter counts as that."""


class Latencies:
    """Takes them in."""

    def __init__(self) -> None:
        """None yet."""
        self._each = array("d")
        self._counts: Counter[int] = Counter()

    def extend(self, seconds: Iterable[float]) -> None:
        """More of them."""
        self._each.extend(seconds)
        if len(self._each) > EXACT:
            self._fold()

    def in_order(self) -> Sequence[float]:
        """All, by size."""
        if not self._counts:
            return sorted(self._each)
        self._fold()
        ordered = sorted(self._counts.items())
        values = tuple(math.exp(place * _STEP) * (1 - ERROR) for place, _ in ordered)
        return Buckets(values, tuple(accumulate(count for _, count in ordered)))

    def _fold(self) -> None:
        places = np.ceil(np.log(np.maximum(self._each, _LEAST)) / _STEP).astype(int)
        self._counts.update(dict(zip(*(each.tolist() for each in np.unique(places, return_counts=True)), strict=True)))
        del self._each[:]


@dataclass(frozen=True, slots=True)
class Buckets(Sequence[float]):
    """Latencies in order of size, each told by its bucket's middle."""

    values: tuple[float, ...]
    ends: tuple[int, ...]
    """How many are in this bucket and those before."""

    def __len__(self) -> int:
        """How many there are."""
        return self.ends[-1]

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> list[float]: ...
    def __getitem__(self, place: int | slice) -> float | list[float]:
        """That of this place."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.values[bisect_right(self.ends, place % len(self))]
