"""Measures what a call costs that brings its picture along, against one that has put it into the store before.

python -m benchmarks.performance.brought_along [--rounds 6] [--seconds 4] [--callers 8] [--model NAME] [--images DIR]

Plain HTTP/1.1 from connections that stay open, in turns: ``one`` call with the JPEG as its body; ``two`` steps, asked
for 100 places at a time: PUT to the store, then JSON with the uuid. CPU is that of all parts of the service.
Results: benchmarks/results/brought_along.json.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import aiohttp
import psutil
from rich.console import Console
from yarl import URL

from benchmarks.common.about import about, use_cores
from benchmarks.common.figures import spread
from benchmarks.common.files import RESULTS, read_pictures, write_json
from benchmarks.common.options import add_images, add_model
from benchmarks.common.service import running, temporary_home
from shoal.client.connection import find_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from benchmarks.common.service import Running

RESULT = RESULTS / "brought_along.json"
_PLACES = 100


class Caller:
    """One service, asked in both ways."""

    def __init__(self, session: aiohttp.ClientSession, target: str, model: str) -> None:
        self._session = session
        self._origin = f"http://{target}"
        self._ask = f"{self._origin}/v1/models/{model}:classify"
        self._places: list[dict[str, str]] = []

    async def one(self, picture: bytes) -> None:
        """Brings it along."""
        async with self._session.post(self._ask, data=picture, headers={"content-type": "image/jpeg"}) as answer:
            answer.raise_for_status()
            await answer.read()

    async def two(self, picture: bytes) -> None:
        """Puts it into the store, and then asks."""
        if not self._places:
            async with self._session.post(f"{self._origin}/v1/uploads", json={"count": _PLACES}) as answer:
                answer.raise_for_status()
                self._places += (await answer.json())["uploads"]
        place = self._places.pop()
        async with self._session.put(URL(place["put_url"], encoded=True), data=picture) as answer:
            answer.raise_for_status()
        async with self._session.post(self._ask, json={"image_uuid": place["image_uuid"]}) as answer:
            answer.raise_for_status()
            await answer.read()


def main() -> None:
    """Measures, prints and writes the results."""
    options = _options()
    use_cores()
    pictures = read_pictures(options.images)
    with temporary_home(options.model) as (home, model), running(home) as service:
        rounds = asyncio.run(_rounds(service, model.name, pictures, options))
    told = {way: {name: spread([each[way][name] for each in rounds]) for name in rounds[0][way]} for way in rounds[0]}
    ratios = {name: spread([each["one"][name] / each["two"][name] for each in rounds]) for name in rounds[0]["one"]}
    write_json(RESULT, about() | told | {"one_to_two": ratios})
    Console().print(told, ratios)


async def _rounds(
    service: Running, model: str, pictures: Sequence[bytes], options: argparse.Namespace
) -> list[dict[str, dict[str, float]]]:
    found = find_connection(None, None, service.home)
    async with aiohttp.ClientSession(headers={"x-api-key": found.api_key or ""}) as session:
        caller = Caller(session, found.target, model)
        ways = {"one": caller.one, "two": caller.two}
        rounds = [
            {way: await _window(service, ask, pictures, options) for way, ask in ways.items()}
            for _ in range(options.rounds + 1)
        ]
        return rounds[1:]  # the first warms up


async def _window(
    service: Running, ask: Callable[[bytes], Awaitable[None]], pictures: Sequence[bytes], options: argparse.Namespace
) -> dict[str, float]:
    turns: Iterator[bytes] = itertools.cycle(pictures)
    before, begun, answered = _cpu_seconds(service), time.monotonic(), 0

    async def call() -> None:
        nonlocal answered
        while time.monotonic() - begun < options.seconds:
            await ask(next(turns))
            answered += 1

    await asyncio.gather(*(call() for _ in range(options.callers)))
    seconds, after = time.monotonic() - begun, _cpu_seconds(service)
    spent = {f"{role}_cpu_ms": 1000 * (after[role] - before[role]) / answered for role in after}
    return {"images_per_second": answered / seconds, "cpu_ms": sum(spent.values()), **spent}


def _cpu_seconds(service: Running) -> Mapping[str, float]:
    """Of each part with all that it started."""
    spent: dict[str, float] = {}
    for part in service.parts:
        parent = psutil.Process(part.pid)
        for process in (parent, *parent.children(recursive=True)):
            times = process.cpu_times()
            spent[part.role] = spent.get(part.role, 0.0) + times.user + times.system
    return spent


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window")
    parser.add_argument("--callers", type=int, default=8)
    add_model(parser)
    add_images(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
