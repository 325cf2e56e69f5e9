"""The load of past days from Shoal's own metrics, by Prometheus' HTTP API."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from shoal.errors import ConfigurationError
from shoal.plan.history import History
from shoal.simulate import prometheus

if TYPE_CHECKING:
    from collections.abc import Callable

QUERY = 'sum by (model) (rate(shoal_batcher_requests_total{model!="-"}[1h]))'
"""Requests that ended, of every code: what was refused was load, too. Model ``-`` is none that a worker vouched for."""
_HOUR = 3600


def fetch(url: str, days: int, now: Callable[[], float] = time.time) -> History:
    """Each model's mean rate in each hour of the last days.

    Raises:
        ConfigurationError: the URL is none, or what answers isn't Prometheus or doesn't know Shoal.
        Unavailable: nothing answers there.
    """
    end = int(now() // _HOUR) * _HOUR
    asked = {"query": QUERY, "start": end - 24 * _HOUR * days, "end": end, "step": _HOUR}
    return parse(prometheus.ask(url, _option(url), "query_range", asked), url)


def parse(body: bytes, url: str) -> History:
    """The answer to a range query; see ``fetch``."""
    found = prometheus.series(body, _option(url), "matrix")
    try:
        rates = {str(one["metric"]["model"]): _rates(one["values"]) for one in found}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise prometheus.foreign(_option(url)) from error
    if not any(rates.values()):
        raise ConfigurationError(
            f"--prometheus {url}: knows no shoal_batcher_requests_total of these days; does it scrape the batchers? "
            "See docs/metrics.md"
        )
    return History({model: known for model, known in rates.items() if known})


def _option(url: str) -> str:
    return f"--prometheus {url}"


def _rates(values: list[Any]) -> dict[int, float]:
    """A sample at the end of an hour is the mean of the hour before it; those that are no numbers are left out."""
    found = {int(at) // _HOUR - 1: float(rate) for at, rate in values}
    return {hour: rate for hour, rate in found.items() if math.isfinite(rate) and rate >= 0}
