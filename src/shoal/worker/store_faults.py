"""What an object store's error says: a few words for callers, and a line for the log that has no secret in it."""

from __future__ import annotations

import logging
import re
from time import monotonic
from typing import Final

log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 10.0
"""A kind of fault is logged so often."""
_MAX_TEXT: Final = 400
_QUERY: Final = re.compile(r"\?[^\s\"'<>)]*")
"""A presigned address has its signature there."""
_USER: Final = re.compile(r"(?<=://)[^/\s@]*@")
_STATUS: Final = re.compile(r"status code: (\d{3}[ \w]*)")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_KINDS: Final = (
    ("connection refused", "connection refused"),
    ("connection reset", "connection lost"),
    ("broken pipe", "connection lost"),
    ("connection closed", "connection lost"),
    ("incompletemessage", "connection lost"),
    ("unexpectedeof", "connection lost"),
    ("response body error", "connection lost"),
    ("dns error", "its name can't be resolved"),
    ("failed to lookup address", "its name can't be resolved"),
    ("certificate", "its certificate is not trusted"),
    ("timed out", "time-out"),
    ("timedout", "time-out"),
    ("kind: timeout", "time-out"),
    ("unreachable", "unreachable"),
)
"""In words of Linux, hyper and rustls, which obstore passes on."""


def kind(error: BaseException) -> str:
    """What kind of failure it was, such as ``503 Service Unavailable`` or ``connection refused``; fit for callers."""
    text = str(error)
    if status := _STATUS.search(text.partition("\n")[0]):
        return status[1].strip()
    lower = f"{text} {error!r}".lower()
    return next((words for sign, words in _KINDS if sign in lower), "the request failed")


def told(error: BaseException) -> str:
    """Its first line, without addresses' queries and passwords.

    Of the answer's body, which may quote our key, it has the store's code alone.
    """
    text = str(error).strip()
    line = text.partition("\n")[0]
    if status := _STATUS.search(line):
        line = line[: status.end()]
        if code := _CODE.search(text):
            line += f" ({code[1]})"
    return _USER.sub("", _QUERY.sub("", line))[:_MAX_TEXT]


class FaultLog:
    """Says why GETs fail: each kind at once, and then at most every 10 seconds with how many there were."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def add(self, error: BaseException) -> str:
        """One more; its kind."""
        what, now = kind(error), monotonic()
        if now - self._said.get(what, -_EVERY_SECONDS) < _EVERY_SECONDS:
            self._untold[what] = self._untold.get(what, 0) + 1
            return what
        more = self._untold.pop(what, 0)
        self._said[what] = now
        log.warning(
            "the object store failed a GET: %s: %s%s", what, told(error), f" ({more} more like it)" if more else ""
        )
        return what
