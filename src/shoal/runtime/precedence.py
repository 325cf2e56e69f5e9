"""Whose turn it is where interactive and bulk work wait for the same: interactive first, and bulk's stated share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.runtime.priority import BULK, INTERACTIVE

if TYPE_CHECKING:
    from shoal.runtime.priority import Priority

BULK_SHARE: Final = 8
"""While both wait, bulk has what comes to one turn of so many, so that it is never starved."""
PATIENCE: Final = 64
"""However much bulk work rides in interactive turns, what waits for a turn of its own has one of so many: else the same
few would wait while others ride past them."""


class Precedence:
    """Counts turns, and the bulk work in interactive ones; has no clock, and keeps nothing of who waits."""

    def __init__(self) -> None:
        self._passed = 0
        """Interactive turns since bulk work began to wait, or had a turn."""
        self._owed = 0.0
        """Of a turn: what bulk's share of these came to, less what it had in them."""

    @property
    def bulk_is_due(self) -> bool:
        """Whether bulk work that waits has had less than its share of turns, or has waited for so many."""
        return self._owed >= 1 - 1 / BULK_SHARE or self._passed >= PATIENCE - 1

    def next(self, *, interactive: bool, bulk: bool) -> Priority | None:
        """Whose turn comes, given who waits; None: nobody does."""
        if bulk and (self.bulk_is_due or not interactive):
            return BULK
        return INTERACTIVE if interactive else None

    def had(self, priority: Priority, *, bulk_waits: bool, riding: float = 0.0) -> None:
        """A turn was taken.

        Args:
            priority: Whose.
            bulk_waits: Whether bulk work waits that could have had it.
            riding: Which part of an interactive turn's work is bulk, from 0 to 1. What is beyond bulk's share of the
                turn makes up for earlier turns, and is no credit for later ones.
        """
        if priority is BULK or not bulk_waits:
            self._passed, self._owed = 0, 0.0
        else:
            self._passed += 1
            self._owed = max(0.0, self._owed + 1 / BULK_SHARE - riding)
