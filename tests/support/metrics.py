"""What another process's metrics say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.samples import Sample


async def sample(url: str, name: str, **labels: str) -> float:
    """The sum of a sample, such as ``shoal_worker_fetch_seconds_count``, over all labels but those given."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        page = await response.text()
    return sum(found.value for found in _samples(page, name) if labels.items() <= found.labels.items())


def _samples(page: str, name: str) -> Iterator[Sample]:
    """Those of the name. No other line is parsed: a router's page has thousands, and is asked for again and again."""
    lines = [line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        yield from family.samples
