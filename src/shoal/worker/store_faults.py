"""What an object store's error says: a few words for callers, and a line for the log that has no secret in it."""

from __future__ import annotations

import logging
import re
from typing import Final

from shoal.runtime.logs import Seldom

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
    """Says why GETs fail, each kind seldom and with how many there were."""

    def __init__(self) -> None:
        self._log = Seldom(logging.getLogger(__name__))

    def add(self, error: BaseException) -> str:
        """One more; its kind."""
        what = kind(error)
        self._log.say(what, "the object store failed a GET: %s: %s", what, told(error))
        return what
