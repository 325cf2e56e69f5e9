"""Logs: one line an event on standard error, the same form in every process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

LogLevel = Literal["debug", "info", "warning", "error"]
"""The least that a line of Shoal's own says to be written."""

_FORM = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S"
SELDOM_SECONDS = 60.0
"""Between two lines of one reason."""
_MAX_REASONS = 256
"""Remembered at once; callers can't make a log remember more."""


def configure(level: str) -> None:
    """Sends what this process logs at ``level`` (debug, info, warning or error) and above to standard error.

    Libraries stay at warning: their debug output shows headers, and so secrets.
    """
    logging.basicConfig(format=_FORM, datefmt=_TIME, level=logging.WARNING)
    logging.getLogger("shoal").setLevel(level.upper())


@dataclass(slots=True)
class _Reason:
    said: float
    silent: int = 0


class Seldom:
    """Says each reason at once, then once in ``SELDOM_SECONDS`` at most, with how often it was left unsaid."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = monotonic) -> None:
        """Starts with nothing said.

        Args:
            log: Where lines go.
            clock: Seconds, from any origin.
        """
        self._log = log
        self._clock = clock
        self._reasons: dict[Hashable, _Reason] = {}

    def say(self, reason: Hashable, text: str, *arguments: object, error: BaseException | None = None) -> None:
        """Logs ``text % arguments`` as a warning, unless ``reason`` was said within the time.

        With an ``error``, and its trace, it is logged as one.
        """
        now = self._clock()
        known = self._reasons.get(reason)
        if known is not None and now - known.said < SELDOM_SECONDS:
            known.silent += 1
            return
        more = f" ({known.silent} more like this since the last line)" if known is not None and known.silent else ""
        self._reasons.pop(reason, None)
        if len(self._reasons) >= _MAX_REASONS:
            del self._reasons[next(iter(self._reasons))]
        self._reasons[reason] = _Reason(now)
        self._log.log(logging.ERROR if error else logging.WARNING, text + more, *arguments, exc_info=error)
