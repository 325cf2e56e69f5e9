"""Whose turn it is where interactive and bulk work wait for the same: interactive first, and bulk's stated share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.runtime.priority import BULK, INTERACTIVE

if TYPE_CHECKING:
    from shoal.runtime.priority import Priority

BULK_SHARE: Final = 8
"""While both wait, bulk has one turn of so many, so that it is never starved."""


class Precedence:
    """Counts turns; has no clock, and keeps nothing of who waits."""

    def __init__(self) -> None:
        self._passed = 0
        """Interactive turns since bulk work began to wait, or had a turn."""

    @property
    def bulk_is_due(self) -> bool:
        """Whether bulk work that waits has waited for its share of turns."""
        return self._passed >= BULK_SHARE - 1

    def next(self, *, interactive: bool, bulk: bool) -> Priority | None:
        """Whose turn comes, given who waits; None: nobody does."""
        if bulk and (self.bulk_is_due or not interactive):
            return BULK
        return INTERACTIVE if interactive else None

    def had(self, priority: Priority, *, bulk_waits: bool) -> None:
        """A turn of ``priority`` was taken, and bulk work waits, or doesn't, that could have had it."""
        self._passed = self._passed + 1 if priority is INTERACTIVE and bulk_waits else 0
