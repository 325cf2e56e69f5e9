"""A real Prometheus (Debian's package ``prometheus``) for as long as a block lasts."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from shoal.errors import Unavailable
from shoal.local.process import tail
from shoal.runtime.ports import FreePorts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_START_SECONDS = 30.0
_ASK_SECONDS = 0.1
_REFUSED = 400


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]
    """Unix time and value, without NaN; an instant query has one."""


class Prometheus:
    """Its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self._session = session

    async def now(self, expression: str) -> list[Series]:
        """What ``expression`` gives at this moment."""
        answer = await self._ask("query", query=expression)
        if answer["resultType"] == "scalar":
            return [_series({}, [answer["result"]])]
        return [_series(each["metric"], [each["value"]]) for each in answer["result"]]

    async def over(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """What it gave at each step from ``start`` to ``end``, in Unix time."""
        answer = await self._ask("query_range", query=expression, start=start, end=end, step=step)
        return [_series(each["metric"], each["values"]) for each in answer["result"]]

    async def until(self, expression: str, limit_seconds: float) -> list[Series]:
        """Waits until ``expression`` gives anything.

        Raises:
            TimeoutError: it didn't within the limit.
        """
        async with asyncio.timeout(limit_seconds):
            while not (found := await self.now(expression)):  # noqa: ASYNC110 - Prometheus has no way to tell
                await asyncio.sleep(_ASK_SECONDS)
        return found

    async def _ask(self, kind: str, **parameters: object) -> Any:  # JSON
        data = {name: str(value) for name, value in parameters.items()}
        async with self._session.post(f"/api/v1/{kind}", data=data) as response:
            answer = await response.json()
        if answer["status"] != "success":
            raise ValueError(f"{parameters['query']}: {answer['error']}")
        return answer["data"]


@asynccontextmanager
async def watching(configuration: Path, data: Path) -> AsyncIterator[Prometheus]:
    """Runs one on ``configuration``; its series lie in ``data``, its log beside them.

    Raises:
        Unavailable: it doesn't start; the log says why.
    """
    log = _log_file(data)
    listen = FreePorts()()
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            "prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={data / 'series'}",
            f"--web.listen-address={listen}", "--log.level=warn", stdout=output, stderr=output,
        )  # fmt: skip
    try:
        url = f"http://{listen}"
        async with aiohttp.ClientSession(url) as session:
            await _ready(session, process, log)
            yield Prometheus(session, url)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(session: aiohttp.ClientSession, process: asyncio.subprocess.Process, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                try:
                    async with session.get("/-/ready") as response:
                        if response.status < _REFUSED:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(_ASK_SECONDS)
    except TimeoutError:
        pass
    raise Unavailable(f"Prometheus didn't start:\n{tail(log)}")


def _log_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "prometheus.log"


def _series(labels: dict[str, str], points: list[tuple[float, str]]) -> Series:
    values = ((float(time), float(value)) for time, value in points)
    return Series(labels, tuple(point for point in values if not math.isnan(point[1])))
