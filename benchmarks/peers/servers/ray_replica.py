"""Ray Serve: a replica that batches with ``@serve.batch``. In a module of its own, so that replicas import it."""

import asyncio
from typing import Any

from ray import serve
from starlette.requests import Request

from benchmarks.peers.servers.plan import Plan
from benchmarks.peers.servers.work import Work

_CHOICE = Plan.read().choice


@serve.deployment
class Classifier:
    """Decodes a batch, then infers."""

    def __init__(self) -> None:
        self._work = Work(Plan.read())

    @serve.batch(
        max_batch_size=_CHOICE.batch_size,
        batch_wait_timeout_s=_CHOICE.wait_ms / 1000,
        max_concurrent_batches=_CHOICE.options["batches"],
    )
    async def _classify(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        # Off the event loop, so that the next batch fills meanwhile:
        # https://docs.ray.io/en/latest/serve/advanced-guides/asyncio-best-practices.html
        return await asyncio.to_thread(self._work.classify, pictures)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One picture."""
        return await self._classify(await request.body())
