"""The load of past days from Shoal's own metrics, by Prometheus' HTTP API.

https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from shoal.errors import ConfigurationError, Unavailable
from shoal.plan.history import History

if TYPE_CHECKING:
    from collections.abc import Callable

QUERY = 'sum by (model) (rate(shoal_batcher_requests_total{model!="-"}[1h]))'
"""Requests that ended, of every code: what was refused was load, too. Model ``-`` is none that a worker vouched for."""
_HOUR = 3600
_TIMEOUT_SECONDS = 30
_MOST_BYTES = 2**26


def fetch(url: str, days: int, now: Callable[[], float] = time.time) -> History:
    """Each model's mean rate in each hour of the last days.

    Raises:
        ConfigurationError: the URL is none, or what answers isn't Prometheus or doesn't know Shoal.
        Unavailable: nothing answers there.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigurationError(f"--prometheus {url}: must start with http:// or https://")
    end = int(now() // _HOUR) * _HOUR
    asked = {"query": QUERY, "start": end - 24 * _HOUR * days, "end": end, "step": _HOUR}
    address = f"{url.rstrip('/')}/api/v1/query_range?{urlencode(asked)}"
    try:
        with urlopen(address, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - http and https alone, see above
            body = answer.read(_MOST_BYTES)
    except HTTPError as error:
        raise ConfigurationError(f"--prometheus {url}: {_reason(error)}") from error
    except (URLError, OSError) as error:
        raise Unavailable(f"--prometheus {url}: nothing answers: {getattr(error, 'reason', error)}") from error
    return parse(body, url)


def parse(body: bytes, url: str) -> History:
    """The answer to a range query; see ``fetch``."""
    try:
        answer = json.loads(body)
        if answer["status"] != "success":
            raise ConfigurationError(f"--prometheus {url}: {answer.get('error', 'the query failed')}")
        if answer["data"]["resultType"] != "matrix":
            raise ConfigurationError(
                f"--prometheus {url}: answered a {answer['data']['resultType']}, expected a matrix"
            )
        series = answer["data"]["result"]
        rates = {str(one["metric"]["model"]): _rates(one["values"]) for one in series}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"--prometheus {url}: the answer is none of Prometheus' HTTP API") from error
    if not any(rates.values()):
        raise ConfigurationError(
            f"--prometheus {url}: knows no shoal_batcher_requests_total of these days; does it scrape the batchers? "
            "See docs/metrics.md"
        )
    return History({model: known for model, known in rates.items() if known})


def _rates(values: list[Any]) -> dict[int, float]:
    """A sample at the end of an hour is the mean of the hour before it; those that are no numbers are left out."""
    found = {int(at) // _HOUR - 1: float(rate) for at, rate in values}
    return {hour: rate for hour, rate in found.items() if math.isfinite(rate) and rate >= 0}


def _reason(error: HTTPError) -> str:
    try:
        told = str(json.loads(error.read(_MOST_BYTES))["error"])
    except (ValueError, KeyError, TypeError):
        told = error.reason
    return f"answers {error.code}: {told}"
