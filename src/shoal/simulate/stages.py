"""What fetching and decoding take, as the service's own histograms have it: distributions and no means.

A worker's ``/metrics`` tells of all that it has done since its start, a Prometheus of the last day, all workers
together. Buckets double in width, and within one every time is as likely: so a percentile may be off by as much.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from shoal.errors import ConfigurationError
from shoal.simulate import prometheus
from shoal.simulate.spreads import Empirical, Sometimes, Sum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from shoal.simulate.scenario import Spread

FETCH: Final = "shoal_worker_fetch_seconds"
DECODE: Final = "shoal_worker_decode_seconds"
WINDOW: Final = "1d"
_BUCKET: Final = "_bucket"


@dataclass(frozen=True, slots=True)
class Sample:
    """One bucket of one worker's or all workers' histogram, which is cumulative."""

    metric: str
    """``FETCH`` or ``DECODE``."""
    model: str
    at_most: float
    """Seconds."""
    count: float


def read(sources: Iterable[str]) -> dict[str, Spread]:
    """To prepare a picture, by model.

    Args:
        sources: Each a worker's ``http://HOST:PORT/metrics``, a file with such a page, or the URL of a Prometheus.

    Raises:
        ConfigurationError: one is neither, or no model has been fetched for; names the source.
        Unavailable: nothing answers at a URL.
    """
    told = list(sources)
    found = preparations(sample for source in told for sample in _samples(source))
    if not found:
        raise ConfigurationError(
            f"--stages {' '.join(told)}: no {FETCH} in which anything was counted; expected a worker's /metrics, or a "
            "Prometheus that scrapes the workers: docs/metrics.md"
        )
    return found


def preparations(samples: Iterable[Sample]) -> dict[str, Spread]:
    """By model. Of pictures that a GPU decodes only the fetch is told: decoding is part of the batch's time then."""
    counts: defaultdict[tuple[str, str], defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    for one in samples:
        counts[one.model, one.metric][one.at_most] += one.count
    found: dict[str, Spread] = {}
    for (model, metric), buckets in counts.items():
        fetched = max(buckets.values())
        if metric != FETCH or not fetched > 0:
            continue
        decode = counts.get((model, DECODE), {math.inf: 0.0})
        decoded = max(decode.values())
        found[model] = fetch = _spread(buckets)
        if decoded > 0:
            found[model] = Sum((fetch, Sometimes(_spread(decode), min(1.0, decoded / fetched))))
    return found


def _spread(buckets: Mapping[float, float]) -> Empirical:
    """``increase()`` extrapolates each bucket by itself, so that a larger one may count a little less: noise."""
    bounds = sorted(buckets)
    return Empirical.of_buckets(dict(zip(bounds, accumulate((buckets[bound] for bound in bounds), max), strict=True)))


def check_models(found: Mapping[str, Spread], models: Iterable[str]) -> None:
    """Raises ConfigurationError where one of ``models`` isn't among those found."""
    if missing := [name for name in models if name not in found]:
        raise ConfigurationError(
            f"--stages: nothing was fetched for {', '.join(missing)} yet; there is {', '.join(sorted(found))}"
        )


def _samples(source: str) -> Iterator[Sample]:
    option = f"--stages {source}"
    if not prometheus.is_address(source):
        try:
            yield from of_page(Path(source).read_text(encoding="utf-8"), option)
        except OSError as error:
            raise ConfigurationError(f"{option}: can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{option}: is no text in UTF-8") from error
    elif source.rstrip("/").endswith("/metrics"):
        yield from of_page(prometheus.get(source, option).decode(errors="replace"), option)
    else:
        for metric in (FETCH, DECODE):
            question = {"query": f"sum by (model, le) (increase({metric}{_BUCKET}[{WINDOW}]))"}
            yield from of_answer(prometheus.ask(source, option, "query", question), option, metric)


def of_page(text: str, option: str) -> list[Sample]:
    """Of a page in Prometheus' text format. Raises ConfigurationError where it is something else."""
    try:
        return [
            Sample(family.name, sample.labels["model"], float(sample.labels["le"]), sample.value)
            for family in text_string_to_metric_families(text)
            if family.name in {FETCH, DECODE}
            for sample in family.samples
            if sample.name.endswith(_BUCKET)
        ]
    except (ValueError, KeyError, IndexError) as error:
        raise ConfigurationError(f"{option}: is no page of metrics: {error}") from error


def of_answer(body: bytes, option: str, metric: str) -> list[Sample]:
    """Of the answer to a query for one metric. Raises ConfigurationError where it is something else."""
    try:
        return [
            Sample(metric, one["metric"]["model"], float(one["metric"]["le"]), float(one["value"][1]))
            for one in prometheus.series(body, option, "vector")
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise prometheus.foreign(option) from error
