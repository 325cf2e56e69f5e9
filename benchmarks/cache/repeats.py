"""Images/s of a whole service by the share of pictures that were asked about before, with and without a cache."""

from __future__ import annotations

import asyncio
import shutil
import time
from itertools import count, cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.cache.contents import distinct
from benchmarks.common.service import running, temporary_home
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.client import AsyncClient
    from shoal.service.home import Home

MODEL: Final = "efficientnet-lite0"
CACHED: Final = "cached"
WINDOWS: Final = (("no cache", MODEL, 0.5), ("no repeats", CACHED, 0.0), ("50 % repeats", CACHED, 0.5))
CALLERS: Final = 48
HOT: Final = 20
"""Pictures that are asked about again and again."""
CALLS: Final = 1000
ROUNDS: Final = 5


class _Found(NamedTuple):
    images_per_s: float
    p50_ms: float
    p99_ms: float
    cached_p50_ms: float
    cached_share: float


async def show(quick: bool) -> None:
    """Prints a row a window."""
    calls = CALLS // 5 if quick else CALLS
    with temporary_home(MODEL) as (home, _):
        _add_cached(home)
        service = home.root / "shoal.yaml"
        service.write_text(f"models: {{{CACHED}: {{cache_seconds: 3600}}}}\n")
        with running(home, service) as started:
            async with started.client() as client:
                await _measure(client, calls, 2 if quick else ROUNDS)


def _add_cached(home: Home) -> None:
    """The same model, under another name."""
    shutil.copytree(home.models / MODEL, home.models / CACHED)
    config = home.models / CACHED / "config.pbtxt"
    config.write_text(config.read_text().replace(f'name: "{MODEL}"', f'name: "{CACHED}"'))


async def _measure(client: AsyncClient, calls: int, rounds: int) -> None:
    numbers = count()
    hot = await _upload(client, numbers, HOT)
    for name in hot:
        await client.classify(name, CACHED)
    found: dict[str, list[_Found]] = {window: [] for window, _, _ in WINDOWS}
    for _ in range(rounds):
        for window, model, share in WINDOWS:
            new = await _upload(client, numbers, round(calls * (1 - share)))
            names = list(_mixed(new, hot)) if share else new
            found[window].append(await _run(client, model, names))
    _print(found)


def _mixed(new: list[str], hot: list[str]) -> Iterator[str]:
    """As many of each, in turn."""
    for name, known in zip(new, cycle(hot), strict=False):
        yield from (name, known)


async def _upload(client: AsyncClient, numbers: Iterator[int], pictures: int) -> list[str]:
    contents = islice(distinct(next(numbers) * 1_000_000), pictures)
    return [str(name) for name in await asyncio.gather(*map(client.upload, contents))]


async def _run(client: AsyncClient, model: str, names: list[str]) -> _Found:
    left = iter(names)
    latencies: list[float] = []
    cached: list[float] = []

    async def caller() -> None:
        for name in left:
            began = time.perf_counter()
            result = await client.classify(name, model)
            seconds = time.perf_counter() - began
            latencies.append(seconds)
            if result.timing.cached:
                cached.append(seconds)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    speed = len(names) / (time.perf_counter() - began)
    p50, p99, of_cached = (_quantile_ms(*each) for each in ((latencies, 0.5), (latencies, 0.99), (cached, 0.5)))
    return _Found(speed, p50, p99, of_cached, len(cached) / len(names))


def _quantile_ms(seconds: list[float], q: float) -> float:
    return 1000 * (percentile(sorted(seconds), q) or 0.0)


def _print(found: dict[str, list[_Found]]) -> None:
    print("| | images/s | of no cache, each round | p50, ms | p99, ms | of hits, p50, ms | hits |")
    print("|---|---|---|---|---|---|---|")
    for window, rounds in found.items():
        ratios = [each.images_per_s / off.images_per_s for each, off in zip(rounds, found["no cache"], strict=True)]
        speed, p50, p99, cached, share = (median(values) for values in zip(*rounds, strict=True))
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {window} | {speed:.0f} | {spread} | {p50:.1f} | {p99:.1f} | {cached:.1f} | {share:.0%} |")
