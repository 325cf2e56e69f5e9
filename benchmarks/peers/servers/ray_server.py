"""Ray Serve: replicas that batch with ``@serve.batch``, behind HAProxy."""

import asyncio
import signal
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from peers.servers.plan import Plan
from peers.servers.work import Work

_CALLERS = 1000
"""More than there are: no caller is to be turned away."""


@serve.deployment
class Classifier:
    """A replica."""

    def __init__(self, batch_size: int, wait_seconds: float, batches: int) -> None:
        self._work = Work(Plan.read())
        self._classify.set_max_batch_size(batch_size)
        self._classify.set_batch_wait_timeout_s(wait_seconds)
        self._batches = batches

    @serve.batch(max_concurrent_batches=Plan.read().choice.options["batches"])
    async def _classify(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        # Off the event loop, so that the next batch fills meanwhile:
        # https://docs.ray.io/en/latest/serve/advanced-guides/asyncio-best-practices.html
        return await asyncio.to_thread(self._work.classify, pictures)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One picture."""
        return await self._classify(await request.body())


def main() -> None:
    """Serves until SIGTERM."""
    plan = Plan.read()
    choice = plan.choice
    stop = threading.Event()
    ray.init(
        num_cpus=choice.processes + 2,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        _temp_dir=plan.scratch,
        log_to_driver=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    serve.start(http_options={"host": "127.0.0.1", "port": plan.port, "access_log": False})
    serve.run(
        Classifier.options(
            num_replicas=choice.processes,
            max_ongoing_requests=_CALLERS,
            ray_actor_options={"num_cpus": 1},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        ).bind(choice.batch_size, choice.wait_ms / 1000)
    )
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
