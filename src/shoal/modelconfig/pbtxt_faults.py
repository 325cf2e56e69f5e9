"""Every fault of a text that is no config.pbtxt, not only the first.

Protobuf's parser stops at the first fault. Each is taken out of the text, with spaces in its place, and the rest is
read again, so that all of them are named, with their lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import text_format

from shoal.modelconfig import keys

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 20
_UNKNOWN = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')
_TWICE = re.compile(r'Message type "[\w.]+" should not have multiple "(\w+)" fields')
_ENUM = re.compile(r'Enum type "([\w.]+)" has no value named (\S+?)\.?$')
_WORD = re.compile(r"[^\s{}\[\],;:<>]+")
_QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*')
_CLOSING = {"{": "}", "[": "]", "<": ">"}


class TextFault(NamedTuple):
    """One fault and where it is."""

    line: int
    """0: unknown."""
    message: str
    unknown_field: bool
    """A field that this version of the format doesn't have, like none that it has: a newer Triton may."""


def find(text: str, parse: Callable[[str], object]) -> tuple[list[TextFault], str]:
    """The faults of ``text``, and the text without them; a fault that can't be taken out is the last one."""
    faults: list[TextFault] = []
    while len(faults) < _MOST:
        try:
            parse(text)
        except text_format.ParseError as error:
            fault = _fault(error)
            if fault in faults:
                break
            faults.append(fault)
            shorter = _without(text, error, parse)
            if shorter is None:
                break
            text = shorter
        else:
            break
    return faults, text


def _fault(error: text_format.ParseError) -> TextFault:
    message = _without_position(str(error))
    if unknown := _UNKNOWN.search(message):
        hint = keys.suggestion(unknown[2], _fields(unknown[1]))
        strange = "did you mean" not in hint
        hint = "it is left out; a newer Triton may know it" if strange else hint
        return TextFault(error.GetLine() or 0, f"{unknown[2]!r} is unknown; {hint}", strange)
    if enum := _ENUM.search(message):
        message = f"{enum[2]} is unknown; {keys.suggestion(enum[2], _values(enum[1]))}"
    elif twice := _TWICE.search(message):
        message = f"{twice[1]!r} is given twice"
    return TextFault(error.GetLine() or 0, message, unknown_field=False)


def _without(text: str, error: text_format.ParseError, parse: Callable[[str], object]) -> str | None:
    """``text`` with its fault taken out; None if that can't be done."""
    start = _offset(text, error)
    if start is None:
        return None
    message = str(error)
    if _UNKNOWN.search(message):
        return _blank(text, start, _end_of_field(text, start))
    if twice := _TWICE.search(message):
        # The position is that of the second one's last word.
        start = text.rfind(twice[1], 0, start)
        return _blank(text, start, _end_of_field(text, start)) if start > 0 else None
    word = _WORD.match(text, start)
    if word is None:
        return None
    for stand_in in ("0", '""'):
        changed = text[:start] + stand_in + text[word.end() :]
        try:
            parse(changed)
        except text_format.ParseError as after:
            if _fault(after)[:2] == _fault(error)[:2] or "Expected string" in str(after):
                continue
        return changed
    return None


def _offset(text: str, error: text_format.ParseError) -> int | None:
    line, column = error.GetLine(), error.GetColumn()
    if not line or not column:
        return None
    lines = text.split("\n")  # as protobuf counts them
    return sum(len(before) + 1 for before in lines[: line - 1]) + column - 1 if line <= len(lines) else None


def _end_of_field(text: str, start: int) -> int:
    """Behind the value of the field whose name is at ``start``."""
    name = _WORD.match(text, start)
    at = name.end() if name else start + 1
    while at < len(text) and text[at] in " \t\r\n:":
        at += 1
    if at < len(text) and text[at] in _CLOSING:
        return _closing(text, at)
    value = _QUOTED.match(text, at) or _WORD.match(text, at)
    return value.end() if value else at


def _closing(text: str, at: int) -> int:
    """Behind the bracket that closes the one at ``at``; the text's end if none does."""
    depth: list[str] = []
    while at < len(text):
        if quoted := _QUOTED.match(text, at):
            at = quoted.end()
            continue
        if text[at] in _CLOSING:
            depth.append(_CLOSING[text[at]])
        elif depth and text[at] == depth[-1]:
            depth.pop()
            if not depth:
                return at + 1
        at += 1
    return at


def _blank(text: str, start: int, end: int) -> str:
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def _fields(message: str) -> list[str]:
    from tritonclient.grpc import model_config_pb2  # see pbtxt

    found = model_config_pb2.DESCRIPTOR.pool.FindMessageTypeByName(message)
    return [field.name for field in found.fields]


def _values(enum: str) -> list[str]:
    from tritonclient.grpc import model_config_pb2  # see pbtxt

    return [value.name for value in model_config_pb2.DESCRIPTOR.pool.FindEnumTypeByName(enum).values]


def _without_position(message: str) -> str:
    """Protobuf's text without its leading ``line:column :`` and the line that it quotes."""
    head, separator, tail = message.partition(" : ")
    message = tail if separator and head.replace(":", "").isdigit() else message
    return re.sub(r"^'.*': (?=[A-Z])", "", message)
