"""What needs Triton or a GPU: queries over what a real Triton on an H100 once answered, through a real Prometheus.

The text is served twice, as by a Triton that starts: counters at 0, then what it answered.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web

from benchmarks.observing.boards import boards
from benchmarks.observing.prometheus import watching
from shoal.local.scrape import LOCAL, configuration
from shoal.local.state import PartState, ServiceState
from shoal.observe import ruleset
from shoal.observe.foreign import FOREIGN, Origin
from shoal.observe.ruleset import ALERTS, RECORDINGS, needs
from shoal.runtime.ports import FreePorts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.observing.prometheus import Prometheus
    from shoal.runtime.endpoint import Endpoint

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWER = (Path(__file__).resolve().parents[1] / "data" / "triton_h100_metrics.txt").read_text()
QUERIES = sorted({
    *(it.expr for board in boards(service=LOCAL, model="resnet50", pool="default") for panel in board.panels
      for it in panel.targets if needs(it.expr)),
    *(rule.record for rule in RECORDINGS if needs(rule.record)),
    *(condition.signal for alert in ALERTS for condition in alert.conditions if needs(condition.signal)),
})  # fmt: skip


def triton(listen: Endpoint) -> ServiceState:
    part = PartState(
        name="triton-default-1", role="triton", state="ready", pid=1, restarts=0, listen="", log="", group="default",
        metrics=f"http://{listen}/metrics",
    )  # fmt: skip
    return ServiceState(pid=1, ready=True, target="", store_url=None, models="", logs="", parts=(part,))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    folder, listen, asked = tmp_path_factory.mktemp("triton"), FreePorts()(), 0

    async def metrics(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        idle = re.sub(r"^(nv_inference_.*) \d+$", r"\1 0", ANSWER, flags=re.MULTILINE)
        return web.Response(text=idle if asked == 1 else ANSWER)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, listen.host, listen.port).start()
    (folder / "rules.yml").write_text(ruleset.render())
    (folder / "prometheus.yml").write_text(ruleset.to_yaml(configuration(triton(listen), 0.5, ["rules.yml"])))
    try:
        async with watching(folder / "prometheus.yml", folder / "data") as prometheus:
            await prometheus.until("rate(nv_inference_count[1m]) > 0 and on () shoal:pool_gpu_utilization:ratio", 60)
            yield prometheus
    finally:
        await runner.cleanup()


async def test_there_are_such_queries() -> None:
    read = " ".join(map(ruleset.expand, QUERIES))
    wanted = [name for name, it in FOREIGN.items() if it.origin in {Origin.TRITON, Origin.GPU}]
    assert [name for name in wanted if name not in read] == []


@pytest.mark.parametrize("query", QUERIES)
async def test_every_query_over_triton_and_gpu_has_data(watched: Prometheus, query: str) -> None:
    found = await watched.now(query)
    assert any(series.points for series in found)


async def test_a_pool_has_its_gpus_utilization(watched: Prometheus) -> None:
    (found,) = await watched.now("shoal:pool_gpu_utilization:ratio")
    assert (found.labels["service"], found.labels["pool"]) == (LOCAL, "default")
    assert found.points[0][1] == 0.87
