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

from shoal.local.store import store_part
from shoal.pictures.objectstore import Credentials
from shoal.runtime.endpoint import Endpoint
from shoal.service import api_keys
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

    from shoal.service.api_keys import Key
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
  painted: {{engine: triton, models: ["pain*"], replicas: 2, worker_processes: 2}}
kubernetes:
  secrets: {{object_store: shoal-object-store, tls: shoal-tls}}
  model_store: {{volume: {{nfs: {{server: nfs.example, path: /exports/models}}}}}}
  router: {{replicas: 2, concurrency: 1}}
  image_retention: {{enabled: true}}
  test: {{key_secret: shoal-test, ca_secret: shoal-test, model: {EMBEDDED}, target: "https://{ROUTER}:8080"}}
  # The Triton that stands in for the image is older than the flag. No DNS here holds an answer back, so that routers
  # know a new worker after 5 s; the batcher leaves as slowly as in a cluster.
  worker: {{allow_client_shared_memory: false, min_ready_seconds: 10}}
"""
RATE = 8.0


@dataclass
class Running:
    """All pods, and who calls them."""

    cluster: Cluster
    key: Key
    certificate: Certificate
    keys_file: Path
    objects: Path
    """What the object store keeps."""

    def mount_keys(self) -> None:
        """The Secret becomes what the keys file is."""
        self.cluster.storage.secrets["shoal-keys"]["keys.json"] = self.keys_file.read_bytes()
        self.cluster.refresh_secrets()

    @asynccontextmanager
    async def load(self, *models: str, key: Key | None = None) -> AsyncGenerator[Load]:
        """Pictures through the router's Service, over TLS."""
        target = f"dns://{NODE_ADDRESS}:53/{ROUTER}:8080"
        authority = self.certificate.certificate.decode()
        order = Order(target, (key or self.key).key, list(models or (EMBEDDED, PAINTED)), RATE, 20.0, authority)
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
    add_tiny_classifier(models, PAINTED, runner="python")
    key = api_keys.create(folder / "keys.json", "alice")
    certificate = self_signed(ROUTER)
    memory = Path("/dev/shm") / f"shoal-pods-{os.getpid()}"
    storage = Storage(
        memory,
        {
            "shoal-keys": {"keys.json": (folder / "keys.json").read_bytes()},
            "shoal-object-store": {"credentials.json": credentials()},
            "shoal-tls": {"tls.crt": certificate.certificate, "tls.key": certificate.key},
            "shoal-test": {"api_key": key.key, "ca.crt": certificate.certificate},
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
            yield Running(made, key, certificate, folder / "keys.json", folder / "objects")
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


async def test_helm_test_has_a_picture_answered(running: Running) -> None:
    assert "compute is the whole batch" in await running.cluster.run_pod("shoal-test")


async def test_containers_have_no_rights(running: Running) -> None:
    for pod in running.cluster.everyone():
        for container in pod.containers.values():
            status = container.status()
            assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}, pod.name
            assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {"0" * 16}, pod.name
            assert status["NoNewPrivs"] == "1", pod.name


async def test_a_router_shows_its_metrics_and_not_its_admin_address(running: Running) -> None:
    (router, _), agent = running.cluster.pods["shoal-router"], running.cluster.node.agent
    status, text = await agent.get(f"http://{router.address}:9100/stats/prometheus")
    assert status == 200
    assert "envoy_cluster_upstream_rq_total" in text
    assert (await agent.get(f"http://{router.address}:9100/config_dump"))[0] == 404
    assert (await agent.get(f"http://{router.address}:9901/ready"))[0] == 0


@pytest.mark.parametrize("part", ["worker-embedded", "worker-painted", "batcher-shared"])
async def test_a_rolling_restart_under_load_loses_nothing(running: Running, part: str) -> None:
    async with running.load() as sent:
        await sent.more(8)
        before = set(running.cluster.pods[f"shoal-{part}"])
        await running.cluster.roll(f"shoal-{part}")
        assert before.isdisjoint(running.cluster.pods[f"shoal-{part}"])
        await sent.more(16)
    assert_all_answered(sent)
    # A roll that breaks calls makes the SDK try many again; a fetch that a busy machine stretches, one.
    assert all(report.counts.retried <= 1 for report in sent.reports.values()), sent.reports
    await running.cluster.check_alive()


async def test_a_router_that_leaves_loses_nothing(running: Running) -> None:
    async with running.load() as sent:
        await sent.more(8)
        await running.cluster.end("shoal-router")
        await sent.more(8)
    assert_all_answered(sent)
    assert len(running.cluster.pods["shoal-router"]) == 1


async def test_a_key_that_is_taken_out_of_the_secret_is_refused(running: Running) -> None:
    bob = api_keys.create(running.keys_file, "bob")
    running.mount_keys()
    async with running.load(EMBEDDED, key=bob) as sent:
        await sent.more(8)
        api_keys.revoke(running.keys_file, bob.id)
        running.mount_keys()
        await sent.more(16)
    (report,) = sent.reports.values()
    assert report.counts.answered > 0
    assert report.counts.lost > 0
    assert all("Unauthenticated" in trouble for trouble in report.troubles)


async def test_the_job_deletes_old_pictures(running: Running) -> None:
    async with running.load(EMBEDDED) as sent:
        await sent.more(4)
    assert "pictures older than 0.0001 h" in await running.cluster.run_job("shoal-image-retention")
    assert not [file for file in running.objects.rglob("*.jpg") if file.stat().st_size]
