"""Logs: one line an event on standard error, the same form in every process."""

from __future__ import annotations

import logging
from typing import Literal

LogLevel = Literal["debug", "info", "warning", "error"]
"""Of Shoal's own lines."""

_FORM = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S"


def configure(level: str) -> None:
    """Sends what this process logs at ``level`` (debug, info, warning or error) and above to standard error.

    Libraries stay at warning: their debug output shows headers, and so secrets.
    """
    logging.basicConfig(format=_FORM, datefmt=_TIME, level=logging.WARNING)
    logging.getLogger("shoal").setLevel(level.upper())
