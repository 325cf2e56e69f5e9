"""How urgent a request is."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Priority(StrEnum):
    """Two levels: what one leaves the other fills."""

    INTERACTIVE = "interactive"
    """Somebody waits for it."""
    BULK = "bulk"
    """Fills what interactive requests leave, and is the first to be refused; a stated share of it is served all the
    same."""


# For what asks of every request: Python 3.11 takes 0.7 us to find a member by its class.
INTERACTIVE: Final = Priority.INTERACTIVE
BULK: Final = Priority.BULK
