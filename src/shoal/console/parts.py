"""What batchers and workers tell of themselves, all asked at once; one that is silent leaves the others alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from shoal.console import figures
from shoal.explain import MODELS_PATH, RECENT_PATH
from shoal.explain.inquiry import every_address
from shoal.explain.views import Glances
from shoal.service.worker_report import WorkerReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from shoal.console.figures import Figures
    from shoal.runtime.endpoint import Endpoint
    from shoal.service.topology import TellingPart

Told = TypeVar("Told", bound=BaseModel)

OTHERS: Final = frozenset({"triton", "store"})
"""Roles of parts that are none of ours: they tell nothing of requests."""
_SECONDS: Final = 2.0
"""What a part may take to answer."""
_MOST_BYTES: Final = 16 * 2**20
"""Of an answer."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one process tells of itself."""

    name: str
    role: str
    group: str
    metrics: Endpoint


@dataclass(frozen=True, slots=True)
class News:
    """What one process told."""

    part: Address
    silent: str = ""
    """Why it didn't."""
    figures: Mapping[str, Figures] = field(default_factory=dict)
    """A batcher's, by model."""
    report: WorkerReport | None = None
    """A worker's; None: an older one tells none."""


async def addresses(telling: Mapping[str, TellingPart]) -> tuple[list[Address], list[News]]:
    """Every process behind the names, and what is to be said of names that nobody knows."""
    found: list[Address] = []
    unknown: list[News] = []
    for name, part in telling.items():
        one = Address(name, part.role, part.group, part.metrics)
        try:
            hosts = await every_address(part.metrics)
        except OSError as error:
            unknown.append(News(one, error.strerror or str(error)))
            continue
        several = hosts != [part.metrics]
        found += [Address(f"{name} {host.host}" if several else name, part.role, part.group, host) for host in hosts]
    return found, unknown


async def ask_batchers(parts: Iterable[Address]) -> list[News]:
    """Each one's counters."""
    async with _session() as session:
        return await asyncio.gather(*(_news(session, part) for part in parts if part.role == "batcher"))


async def ask_workers(parts: Iterable[Address]) -> list[News]:
    """Which models each one serves."""
    async with _session() as session:
        return await asyncio.gather(*(_news(session, part) for part in parts if part.role == "worker"))


async def ask_others(parts: Iterable[Address]) -> list[News]:
    """Whether Tritons and the store answer at all."""
    async with _session() as session:
        return await asyncio.gather(*(_news(session, part) for part in parts if part.role in OTHERS))


async def glances(parts: Iterable[Address], key_ids: AbstractSet[str]) -> Glances:
    """Recent requests of some keys at all batchers, newest or slowest first."""
    query = "&".join(f"key={key_id}" for key_id in sorted(key_ids))
    async with _session() as session:
        told = await asyncio.gather(
            *(_glances(session, part, f"{RECENT_PATH}?{query}") for part in parts if part.role == "batcher")
        )
    failed = [each for one in told for each in one.failed if each.key_id in key_ids]
    slow = [each for one in told for each in one.slow if each.key_id in key_ids]
    return Glances(
        failed=tuple(sorted(failed, key=lambda each: each.seconds_ago)),
        slow=tuple(sorted(slow, key=lambda each: each.total_seconds, reverse=True)),
    )


async def _news(session: aiohttp.ClientSession, part: Address) -> News:
    try:
        if part.role == "worker":
            return News(part, report=await _report(session, part))
        if part.role in OTHERS:
            async with session.get(f"http://{part.metrics}/"):
                return News(part)  # a refusal is an answer, too
        text = await _text(session, part, "/metrics")
        return News(part, figures=await asyncio.to_thread(figures.read, text))
    except TimeoutError:
        return News(part, f"no answer within {_SECONDS:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return News(part, str(error) or type(error).__name__)


async def _report(session: aiohttp.ClientSession, part: Address) -> WorkerReport | None:
    """An older worker answers everything with its metrics."""
    try:
        return WorkerReport.model_validate_json(await _text(session, part, MODELS_PATH))
    except ValidationError:
        return None


async def _glances(session: aiohttp.ClientSession, part: Address, path: str) -> Glances:
    """Whoever is silent, busy or older, of that ``News`` tells."""
    try:
        return Glances.model_validate_json(await _text(session, part, path))
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return Glances()


async def _text(session: aiohttp.ClientSession, part: Address, path: str) -> str:
    async with session.get(f"http://{part.metrics}{path}") as answer:
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise ValueError("busy with other questions")
        answer.raise_for_status()
        body = await answer.content.read(_MOST_BYTES)
        while chunk := await answer.content.read(_MOST_BYTES):
            body += chunk
            if len(body) > _MOST_BYTES:
                raise ValueError(f"its answer is over {_MOST_BYTES} bytes")
        return body.decode()


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))
