"""The chart's pods run for real: what ``helm template`` gives, in network, mount and process namespaces."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from shoal import keys
from shoal.local.store import store_part
from shoal.objectstore import Credentials
from shoal.topology import Endpoint
from support import chart
from support.certificates import Certificate, self_signed
from support.cluster.cluster import NAMESPACE, Cluster, cluster
from support.cluster.container import envoy_image, shoal_image, triton_image
from support.cluster.load import Load, Order, load
from support.cluster.network import DOMAIN, NODE_ADDRESS
from support.cluster.volumes import Storage
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from shoal.keys import Key
    from support.cluster.container import Image
    from support.cluster.network import Network

pytestmark = pytest.mark.asyncio(loop_scope="module")

EMBEDDED, PAINTED = "tiny", "painted"
ROUTER = f"shoal-router.{NAMESPACE}.svc.{DOMAIN}"
STORE = Endpoint(NODE_ADDRESS, 9000)
CREDENTIALS = Credentials("SHOAL-IN-A-TEST", "hush-hush-hush-hush")
VALUES = f"""
object_store: {{url: "s3://images", endpoint: "http://{STORE}", retention_hours: 0.0001}}
pools:
  embedded: {{models: [{EMBEDDED}], replicas: 2}}
  painted: {{engine: triton, models: ["pain*"], replicas: 2}}
kubernetes:
  secrets: {{object_store: shoal-object-store, tls: shoal-tls}}
  model_store: {{volume: {{nfs: {{server: nfs.example, path: /exports/models}}}}}}
  router: {{replicas: 1, concurrency: 1}}
  image_retention: {{enabled: true}}
  # The Triton that stands in for the image is older than the flag.
  worker: {{allow_client_shared_memory: false}}
"""
RATE = 8.0


@dataclass
class Running:
    """All pods, and who calls them."""

    cluster: Cluster
    key: Key
    certificate: Certificate
    keys_file: Path

    @asynccontextmanager
    async def load(self, *models: str) -> AsyncGenerator[Load]:
        """Pictures through the router's Service, over TLS."""
        target = f"dns://{NODE_ADDRESS}:53/{ROUTER}:8080"
        authority = self.certificate.certificate.decode()
        order = Order(target, self.key.key, list(models or (EMBEDDED, PAINTED)), RATE, 20.0, authority)
        async with load(self.cluster.node.network, order) as running:
            yield running


def image(name: str) -> Image:
    """What stands in for a container's image."""
    if "envoyproxy/envoy:" in name:
        return envoy_image()
    return triton_image() if "/tritonserver:" in name else shoal_image()


@asynccontextmanager
async def object_store(network: Network, folder: Path) -> AsyncGenerator[None]:
    """A real S3 server, on the node."""
    (folder / "images").mkdir(parents=True)
    part = store_part(STORE, folder, CREDENTIALS)
    command = network.inside(network.node, *part.command)
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **part.environment}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("cluster")
    models = folder / "models"
    add_tiny_classifier(models, EMBEDDED)
    add_tiny_classifier(models, PAINTED, python_runner=True)
    key = keys.create(folder / "keys.json", "alice")
    certificate = self_signed(ROUTER)
    memory = Path("/dev/shm") / f"shoal-pods-{os.getpid()}"
    storage = Storage(
        memory,
        {
            "shoal-keys": {"keys.json": (folder / "keys.json").read_bytes()},
            "shoal-object-store": {"credentials.json": credentials()},
            "shoal-tls": {"tls.crt": certificate.certificate, "tls.key": certificate.key},
        },
        {"/exports/models": models},
    )
    (folder / "values.yaml").write_text(VALUES)
    objects = chart.render(folder / "values.yaml").objects
    (folder / "node").mkdir()
    try:
        async with (
            cluster(objects, storage, image, folder / "node") as made,
            object_store(made.node.network, folder / "objects"),
        ):
            await made.start()
            yield Running(made, key, certificate, folder / "keys.json")
    finally:
        shutil.rmtree(memory, ignore_errors=True)


def credentials() -> str:
    return f'{{"access_key_id": "{CREDENTIALS.access_key_id}", "secret_access_key": "{CREDENTIALS.secret_access_key}"}}'


def assert_all_answered(sent: Load) -> None:
    for model, report in sent.reports.items():
        assert report.counts.answered == report.counts.sent > 0, f"{model}: {report}"


async def test_pictures_go_through_every_pod(running: Running) -> None:
    async with running.load() as sent:
        await sent.more(24)
    assert_all_answered(sent)
    await running.cluster.check_alive()


@pytest.mark.parametrize("part", ["worker-embedded", "worker-painted", "batcher-shared"])
async def test_a_rolling_restart_under_load_loses_nothing(running: Running, part: str) -> None:
    async with running.load() as sent:
        await sent.more(8)
        before = set(running.cluster.pods[f"shoal-{part}"])
        await running.cluster.roll(f"shoal-{part}")
        assert before.isdisjoint(running.cluster.pods[f"shoal-{part}"])
        await sent.more(16)
    assert_all_answered(sent)
    await running.cluster.check_alive()
