"""What went wrong, counted by status. No clock, no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.errors import ShoalError


@dataclass(slots=True)
class ErrorTally:
    """Of any number of requests, or of parts of them."""

    codes: Counter[str] = field(default_factory=Counter)
    """gRPC status name to how many."""
    reasons: dict[str, str] = field(default_factory=dict)
    """gRPC status name to what one of them was told."""

    def add(self, error: ShoalError) -> None:
        """Counts one."""
        self.codes[error.code.name] += 1
        self.reasons.setdefault(error.code.name, str(error))

    def extend(self, other: ErrorTally) -> None:
        """Takes in what another process counted."""
        self.codes.update(other.codes)
        self.reasons = other.reasons | self.reasons

    def summary(self, numbers: str) -> dict[str, Any]:
        """By status, sorted, ready for JSON: how many, under the name ``numbers``, and ``reasons``."""
        return {numbers: dict(sorted(self.codes.items())), "reasons": dict(sorted(self.reasons.items()))}


def in_words(codes: Mapping[str, int], reasons: Mapping[str, str]) -> list[str]:
    """A line for each status of a summary: ``1,200 x UNAVAILABLE: why``."""
    return [f"{number:,} x {code}: {reasons[code]}" for code, number in codes.items()]
