"""A trace of arrivals as a CSV file: when, for which model, and whose. Read and written line by line.

The header is ``time,model,owner``, in any order; ``owner`` may be missing. A time is seconds from the start, or an ISO
time stamp, which counts from the first line's.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

COLUMNS = ("time", "model", "owner")
_HEADER = "expected the header time,model or time,model,owner"


class Arrival(NamedTuple):
    """A request."""

    time: float
    """Seconds from the start."""
    model: str
    owner: str = ""


@dataclass(slots=True)
class Survey:
    """What a whole trace holds."""

    arrivals: int = 0
    seconds: float = 0.0
    """From 0 to the last arrival."""
    models: Counter[str] = field(default_factory=Counter)
    owners: Counter[str] = field(default_factory=Counter)
    """Those that are named."""


def read(path: Path) -> Iterator[Arrival]:
    """The arrivals of a file, read as they are asked for.

    Raises:
        ConfigurationError: the file can't be read, or a line is wrong: when it comes to it, with file, line and reason.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _arrivals(path, file)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not text in UTF-8") from None


def survey(path: Path) -> Survey:
    """Reads a whole trace, so that its faults are known before it is played.

    Raises:
        ConfigurationError: as ``read``, or it is no file that can be read again.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path}: expected a file: a trace is read more than once")
    found = Survey()
    for arrival in read(path):
        found.arrivals += 1
        found.seconds = arrival.time
        found.models[arrival.model] += 1
        if arrival.owner:
            found.owners[arrival.owner] += 1
    return found


def split(arrivals: Iterable[Arrival]) -> dict[tuple[str, str], array[float]]:
    """The times of each model and owner, 8 bytes each."""
    found: dict[tuple[str, str], array[float]] = {}
    for arrival in arrivals:
        found.setdefault((arrival.model, arrival.owner), array("d")).append(arrival.time)
    return found


def write(path: Path, arrivals: Iterable[Arrival]) -> None:
    """Writes arrivals as they come, to the microsecond.

    Raises:
        ConfigurationError: the file can't be written; one has no model, a time that is none, or is out of order.
    """
    last = 0.0
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            for number, arrival in enumerate(arrivals, 2):
                last = _checked(arrival, last, f"{path}:{number}").time
                lines.writerow((f"{arrival.time:.6f}", arrival.model, arrival.owner))
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be written: {error.strerror or error}") from None


def _arrivals(path: Path, file: Iterable[str]) -> Iterator[Arrival]:
    lines = csv.reader(file, strict=True)
    try:
        columns = _columns(path, next(lines, []))
        seconds, last = _Seconds(), None
        for cells in lines:
            if not cells:
                continue
            where = f"{path}:{lines.line_num}"
            if len(cells) != len(columns):
                raise ConfigurationError(f"{where}: {len(cells)} columns: expected {len(columns)}, as the header has")
            row = dict(zip(columns, cells, strict=True))
            arrival = Arrival(seconds.of(row["time"], where), row["model"].strip(), row.get("owner", "").strip())
            last = _checked(arrival, last.time if last else 0.0, where)
            yield arrival
    except csv.Error as error:
        raise ConfigurationError(f"{path}:{lines.line_num}: is no CSV: {error}") from None
    if last is None:
        raise ConfigurationError(f"{path}: holds no arrivals: expected a line for each after the header")


def _columns(path: Path, header: list[str]) -> list[str]:
    """The header's names, if they are those of a trace."""
    names = [name.strip() for name in header]
    if not any(names):
        raise ConfigurationError(f"{path}:1: the file is empty: {_HEADER}")
    for name in names:
        if name not in COLUMNS:
            raise ConfigurationError(f"{path}:1: unknown column {name!r}: {_HEADER}")
        if names.count(name) > 1:
            raise ConfigurationError(f"{path}:1: two columns are named {name!r}: {_HEADER}")
    for name in ("time", "model"):
        if name not in names:
            raise ConfigurationError(f"{path}:1: no column {name!r}: {_HEADER}")
    return names


def _checked(arrival: Arrival, last: float, where: str) -> Arrival:
    if not arrival.model:
        raise ConfigurationError(f"{where}: no model is named: each arrival needs one")
    if not 0 <= arrival.time < math.inf:
        raise ConfigurationError(f"{where}: time {arrival.time:g}: expected 0 or more seconds from the start")
    if arrival.time < last:
        raise ConfigurationError(
            f"{where}: out of order: {arrival.time:g} s comes after {last:g} s: sort the lines by time"
        )
    return arrival


class _Seconds:
    """Times of one file: all in seconds, or all time stamps, with or without a zone."""

    def __init__(self) -> None:
        self._first: datetime | None = None
        self._in_seconds: bool | None = None

    def of(self, text: str, where: str) -> float:
        """Seconds from the start."""
        number = _number(text)
        if self._in_seconds is None:
            self._in_seconds = number is not None
        if self._in_seconds:
            if number is None:
                raise ConfigurationError(f"{where}: time {text!r} is not a number of seconds, as the lines before have")
            return number
        return self._since_first(text, where)

    def _since_first(self, text: str, where: str) -> float:
        try:
            stamp = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigurationError(
                f"{where}: time {text!r}: expected seconds from the start, or an ISO time stamp; one kind in a file"
            ) from None
        self._first = self._first or stamp
        if (stamp.tzinfo is None) != (self._first.tzinfo is None):
            raise ConfigurationError(f"{where}: time {text!r}: stamps with and without a time zone: give all one")
        return (stamp - self._first).total_seconds()


def _number(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None
