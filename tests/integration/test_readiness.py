"""Whether a real worker is ready: engines that refuse models, wrong and empty stores, versions that break."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from shoal.batching.peers import Proof
from shoal.runtime.endpoint import Endpoint
from shoal.service.home import Home
from shoal.service.spec import parse
from shoal.service.worker_report import WorkerReport
from shoal.worker.readiness import origin
from support.fake_triton import fake_triton
from support.model_sync import model_sync
from support.s3 import running_s3
from support.stack import running_stack, shoal
from support.tiny_models import add_tiny_classifier
from support.worker_process import BATCHES, READY, worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NEWER = "backend 'onnxruntime' is for server version 99"
PLAIN = "object_store: {url: 'memory://'}\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    models = tmp_path / "home" / "models"
    add_tiny_classifier(models, "one")
    add_tiny_classifier(models, "two")
    return models


def triton_pool(**pool: object) -> str:
    return PLAIN + json.dumps({"pools": {"default": {"engine": "triton", **pool}}})[1:-1]


@asynccontextmanager
async def peer(*models: str, ready: bool = True, service: str = "") -> AsyncIterator[str]:
    """Another worker of the pool, as far as it says what it serves; without a ``service`` file it is an older one."""
    proof = Proof(origin(parse(service, "s"), "default") if service else "")
    proof.set(models, ready=ready)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((proof.rpc_handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_engine_that_refuses_every_model(tmp_path: Path, store: Path) -> None:
    async with fake_triton(store) as (triton, url):
        triton.refuses = {"one": NEWER, "two": NEWER}
        async with worker(tmp_path, triton_pool(), "--triton", url) as running:
            assert await running.standing() == (False, False)
            assert "pool default isn't ready: model one: " in running.log()
            assert NEWER in running.log()
            triton.refuses.clear()  # such as memory that is free again: it is tried again
            await running.until(READY)
            assert await running.serving(BATCHES)


@pytest.mark.parametrize(
    ("serves", "ready", "expected"),
    [
        (None, True, False),
        (("one",), True, True),
        (("one", "two"), True, False),
        (("one",), False, False),
    ],
    ids=["nobody to ask", "it never worked", "it works elsewhere", "another new one"],
)
async def test_an_engine_that_refuses_one_model_of_two(
    tmp_path: Path, store: Path, serves: tuple[str, ...] | None, ready: bool, expected: bool
) -> None:
    async with fake_triton(store) as (triton, url), peer(*(serves or ()), ready=ready) as other:
        triton.refuses = {"two": NEWER}
        options = ("--triton", url, *(() if serves is None else ("--peers", other)))
        async with worker(tmp_path, triton_pool(), *options) as running:
            # Ready or not, it carries its share of what it has.
            assert await running.standing() == (expected, True)


async def test_a_named_model_has_to_be_served_whatever_others_do(tmp_path: Path, store: Path) -> None:
    service = triton_pool(models=["one", "three"])
    async with (
        fake_triton(store) as (_, url),
        peer("one") as other,
        worker(tmp_path, service, "--triton", url, "--peers", other) as running,
    ):
        assert await running.standing() == (False, True)
        assert "model three: the service file names it, and it isn't in" in running.log()
        add_tiny_classifier(store, "three")
        await running.until(READY)


async def test_a_version_that_breaks_leaves_a_ready_worker_ready(tmp_path: Path, store: Path) -> None:
    async with worker(tmp_path, PLAIN) as running:
        assert await running.standing() == (True, True)
        (store / "one" / "1" / "model.onnx").write_bytes(b"half a mod")
        await running.until_said("model one is not served")
        assert await running.standing() == (True, True)
        report = WorkerReport.load(Home(tmp_path / "home"), Endpoint.parse(running.address))
        assert (report.ready, report.models) == (True, ("one", "two"))
        # A new one, which can't have the old version, isn't.
        async with worker(tmp_path, PLAIN, "--peers", running.address) as new:
            assert await new.standing() == (False, True)
            assert "isn't ready: model one: " in new.log()


async def test_a_store_that_is_empty_or_away(tmp_path: Path) -> None:
    models = tmp_path / "home" / "models"
    async with worker(tmp_path, PLAIN) as running:
        assert await running.standing() == (False, False)
        assert f"the model store {models} can't be read: No such file" in running.log()
        models.mkdir()
        await running.until_said(f"{models} holds no model")
        assert await running.standing() == (False, False)
        add_tiny_classifier(models, "one")
        await running.until(READY)
        models.rename(models.with_name("unmounted"))  # what is loaded stays
        add_tiny_classifier(tmp_path / "elsewhere", "one")
        assert await running.standing() == (True, True)


async def test_a_pool_that_has_no_model_yet_among_others_that_have(tmp_path: Path, store: Path) -> None:
    pools = {"default": {"models": ["resnet*"]}, "other": {"models": ["*"]}}
    async with worker(tmp_path, PLAIN + json.dumps({"pools": pools})[1:-1]) as running:
        assert await running.standing() == (True, True)


async def test_a_mistyped_pattern_keeps_a_new_worker_from_being_ready(tmp_path: Path, store: Path) -> None:
    async with worker(tmp_path, PLAIN) as running:
        assert await running.standing() == (True, True)
        mistyped = PLAIN + json.dumps({"pools": {"default": {"models": ["oen*"]}}})[1:-1]
        async with worker(tmp_path, mistyped, "--peers", running.address) as new:
            assert await new.standing() == (False, False)
            assert (
                f"model one: ready workers of the pool serve it, and here it fits no pattern or isn't in {store}; "
                in (new.log())
            )


@pytest.mark.usefixtures("store")
async def test_another_store_that_is_not_empty_keeps_a_new_worker_from_being_ready(tmp_path: Path) -> None:
    other = tmp_path / "other"
    add_tiny_classifier(other, "three")
    async with worker(tmp_path, PLAIN) as running:
        assert await running.standing() == (True, True)
        moved = PLAIN + json.dumps({"model_store": {"path": str(other)}})[1:-1]
        async with worker(tmp_path, moved, "--peers", running.address) as new:
            assert await new.standing() == (False, True)
            assert "isn't ready: model one: ready workers of the pool serve it" in new.log()
            add_tiny_classifier(other, "one")
            add_tiny_classifier(other, "two")
            await new.until(READY)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (PLAIN, True),
        (PLAIN + "model_store: {url: 's3://before'}\n", False),
        (PLAIN + "pools: {default: {models: ['one', 'tw*', 'thr*']}}\n", False),
        ("", True),
    ],
    ids=["as it was", "of another url", "under another pattern", "by an older worker"],
)
async def test_a_model_that_is_taken_out_on_purpose_is_one_of_the_same_store(
    tmp_path: Path, store: Path, before: str, expected: bool
) -> None:
    """Others may serve it yet: a volume tells nobody, and model-sync leaves files where they are."""
    assert not (store / "three").exists()
    async with (
        peer("one", "two", "three", service=before) as other,
        worker(tmp_path, PLAIN, "--peers", other) as running,
    ):
        assert await running.standing() == (expected, True)


@pytest.mark.parametrize("mistake", ["prefix", "bucket", "credentials"])
async def test_a_wrong_place_of_published_models_keeps_new_pods_from_being_ready(tmp_path: Path, mistake: str) -> None:
    with running_s3(tmp_path / "s3", "models") as server:
        add_tiny_classifier(tmp_path / "local", "one")
        access = ("--endpoint", server.address, "--credentials-file", server.credentials_file)
        shoal(
            tmp_path / "builder", "model", "push", "one", f"{server.url}/prod", *access, "--store", tmp_path / "local"
        )
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps({"access_key_id": "nobody" * 3, "secret_access_key": "nothing" * 6}))
        wrong.chmod(0o600)
        url = {"prefix": f"{server.url}/prdo", "bucket": "s3://modles/prod", "credentials": f"{server.url}/prod"}[
            mistake
        ]
        given = wrong if mistake == "credentials" else server.credentials_file
        settings = {"url": url, "endpoint": server.address, "credentials_file": str(given), "poll_seconds": 1}
        volume = tmp_path / "volume" / "models"
        service = json.dumps({"object_store": {"url": "memory://"}, "model_store": settings | {"path": str(volume)}})
        (tmp_path / "sync").mkdir()
        file = tmp_path / "sync" / "shoal.yaml"
        file.write_text(service)
        async with model_sync(file, "--pool", "default", ready=False) as sync:
            await sync.until_metric("looks_total", 1, outcome="done" if mistake == "prefix" else "failed")
            assert not await sync.ready()
            assert url in sync.log()
            async with worker(tmp_path, service) as running:
                assert await running.standing() == (False, False)


def test_up_says_what_is_not_served_and_goes_on_with_the_rest(tmp_path: Path) -> None:
    def two(store: Path) -> None:
        add_tiny_classifier(store, "one")
        add_tiny_classifier(store, "two")
        (store / "two" / "1" / "model.onnx").write_bytes(b"half a mod")

    with running_stack(tmp_path / "home", models=two) as stack:
        assert "worker-default-1: model two: " in (stack.home.root / "up.log").read_text()
        status = stack.shoal("status").stdout
        assert "not ready" in status
        assert "worker-default-1: model two: " in status
        (part,) = [
            each for each in json.loads(stack.shoal("status", "--json").stdout)["parts"] if each["role"] == "worker"
        ]
        assert (part["state"], part["models"]) == ("not ready", ["one"])


def test_up_ends_where_no_model_can_be_served(tmp_path: Path) -> None:
    add_tiny_classifier(tmp_path / "models", "one")
    (tmp_path / "models" / "one" / "1" / "model.onnx").write_bytes(b"half a mod")
    done = shoal(tmp_path, "up", "--port", "0", check=False)
    assert done.returncode == 1
    assert "no model is served" in done.stderr
    assert "worker-default-1: model one: " in done.stderr
