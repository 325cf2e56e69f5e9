"""The load of past weeks: what it says of the next, and the day that is planned for."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.plan.document import HOURS, SharedLoad

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from shoal.plan.document import PlanDocument

_WEEK = 7 * HOURS
_COLUMNS = ["hour", "model", "per_s"]


@dataclass(frozen=True, slots=True)
class History:
    """Pictures a second of each model and hour."""

    rates: Mapping[str, Mapping[int, float]]
    """By model, by hours since 1970 in UTC. Hours without a figure are absent."""

    def prediction(self) -> str:
        """How well the same hour a week before tells an hour, in a sentence a model."""
        return " ".join(self._told(model) for model in sorted(self.rates))

    def error(self, model: str) -> float | None:
        """Mean difference to the same hour a week before, over the mean load; None: no hour has one a week before.

        That is the "seasonal naive" forecast's error (Hyndman and Athanasopoulos, Forecasting, 5.2), as a share.
        """
        known = self.rates[model]
        pairs = [(rate, known[hour - _WEEK]) for hour, rate in known.items() if hour - _WEEK in known]
        if not pairs or not any(now for now, _ in pairs):
            return None
        return fmean(abs(now - before) for now, before in pairs) / fmean(now for now, _ in pairs)

    def day(self, model: str) -> list[float]:
        """Of each hour of the day the heaviest that was seen, in UTC; hours never seen have the mean of all others."""
        seen: dict[int, float] = {}
        for hour, rate in self.rates[model].items():
            seen[hour % HOURS] = max(seen.get(hour % HOURS, 0.0), rate)
        return [seen.get(hour, fmean(seen.values())) for hour in range(HOURS)]

    def planned_for(self, document: PlanDocument) -> PlanDocument:
        """The plan file with this load in place of its own; growth stays.

        Raises:
            ConfigurationError: a model of the file has no figures here.
        """
        if missing := document.models.keys() - self.rates.keys():
            raise ConfigurationError(
                f"the past load has nothing of {', '.join(sorted(missing))}; it has {', '.join(sorted(self.rates))}"
            )
        models = {
            name: model.model_copy(update={"per_s": None, "by_hour": self.day(name)})
            for name, model in document.models.items()
        }
        growth = document.load.model_dump(include={"growth_per_month", "months"})
        return document.model_copy(update={"models": models, "load": SharedLoad(**growth)})

    def _told(self, model: str) -> str:
        error = self.error(model)
        if error is None:
            hours = len(self.rates[model])
            return f"{model}: there are {hours} hours of it; it needs more than a week ({_WEEK}) to compare weeks."
        word = (
            "predicts this one well" if error < 0.1 else "predicts this one roughly" if error < 0.3 else "says little"
        )
        return f"{model}: last week {word}; an hour differs by {error:.0%} of the mean load from the same hour then."


def read(path: Path) -> History:
    """Reads a CSV with the columns hour (ISO 8601, UTC where none is named), model, per_s.

    Raises:
        ConfigurationError: naming file, line and reason.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return of_rows(csv.reader(file), str(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path}: is no CSV in UTF-8: {error}") from error


def of_rows(rows: Iterable[list[str]], source: str) -> History:
    """As ``read``, of rows, the first of which is the header."""
    found: dict[str, dict[int, float]] = {}
    line = 0
    for line, row in enumerate(rows, 1):
        if line == 1:
            if row != _COLUMNS:
                raise ConfigurationError(f"{source}:1: the columns are {','.join(row)}; expected {','.join(_COLUMNS)}")
            continue
        if len(row) != len(_COLUMNS):
            raise ConfigurationError(f"{source}:{line}: has {len(row)} fields; expected {len(_COLUMNS)}")
        hour, rate = _hour(row[0], f"{source}:{line}"), _rate(row[2], f"{source}:{line}")
        known = found.setdefault(row[1], {})
        if hour in known:
            raise ConfigurationError(f"{source}:{line}: hour {row[0]} of {row[1]} is there twice")
        known[hour] = rate
    if not found:
        raise ConfigurationError(f"{source}: has no rows; expected {','.join(_COLUMNS)} and a line for each hour")
    return History(found)


def _hour(text: str, where: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{where}: hour: {text!r}: expected a time such as 2026-11-27T13:00") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() // 3600)


def _rate(text: str, where: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise ConfigurationError(f"{where}: per_s: {text!r}: expected a number of pictures a second, 0 or more")
    return rate
