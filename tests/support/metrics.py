"""What another process's metrics say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.samples import Sample


async def exported(url: str | None) -> str:
    """The page at the address of a part's metrics."""
    assert url
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def sample(url: str, name: str, **labels: str) -> float:
    """The sum of a sample, such as ``shoal_worker_fetch_seconds_count``, over all labels but those given."""
    found = _samples(await exported(url), name)
    return sum(each.value for each in found if each.name == name and labels.items() <= each.labels.items())


def _samples(page: str, name: str) -> Iterator[Sample]:
    """Those of the name, or one like it. No other line is parsed: a router writes thousands, again and again."""
    written = {name, name.removesuffix("_total")}  # the parser adds what Envoy and Triton leave out of a counter's name
    begins = tuple(begin for each in written for begin in (f"{each}{{", f"{each} ", f"# TYPE {each} "))
    lines = [line for line in page.splitlines() if line.startswith(begins)]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        yield from family.samples
