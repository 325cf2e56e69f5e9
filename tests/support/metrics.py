"""What another process's metrics say."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


async def sample(url: str, name: str, **labels: str) -> float:
    """The sum of a sample, such as ``shoal_worker_fetch_seconds_count``, over all labels but those given."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        families = text_string_to_metric_families(await response.text())
    samples = (found for family in families for found in family.samples if found.name == name)
    return sum(found.value for found in samples if labels.items() <= found.labels.items())
