"""What one of several equal processes gets of an amount that is meant for all of them together."""

from __future__ import annotations


def share(amount: int, processes: int) -> int:
    """The part of ``amount`` for each of ``processes``, rounded up, so that each gets something."""
    return -(-amount // processes)
