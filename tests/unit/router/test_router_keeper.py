from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shoal.batching.peers import Proof
from shoal.errors import ConfigurationError
from shoal.router import config
from shoal.router.keeper import ConfigKeeper, Input, write
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.watch import changes
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.topology import Topology
from support.certificates import self_signed
from support.mounted import Mounted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


TLS_FILES = (("certificate_file", "crt"), ("key_file", "key"))


def add_model(store: Path, name: str) -> None:
    (store / name).mkdir(parents=True)
    (store / name / "config.pbtxt").touch()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    api_keys.create(home.keys, "alice")
    add_model(home.models, "yolo")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "shoal.yaml").touch()
    Topology(
        public=Endpoint("127.0.0.1", 1),
        balancer=Endpoint("127.0.0.1", 2),
        batchers={"shared": [Endpoint("127.0.0.1", 4)]},
        pools={"default": [Endpoint("127.0.0.1", 5)]},
    ).save(tmp_path / "topology.json")
    return home


@pytest.fixture
def keeper(home: Home, tmp_path: Path) -> ConfigKeeper:
    return ConfigKeeper(
        service_file=tmp_path / "service" / "shoal.yaml", topology_file=tmp_path / "topology.json", home=home
    )


def test_writing_touches_only_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert write(folder, {"a": "1", "b": "1"}) == ["a", "b"]
    inode = (folder / "a").stat().st_ino
    assert write(folder, {"a": "1", "b": "2"}) == ["b"]
    assert (folder / "a").stat().st_ino == inode
    assert (folder / "b").read_text() == "2"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_only_the_owner_may_read_what_is_written(tmp_path: Path) -> None:
    write(tmp_path / "folder", {"a": "1"})
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "folder" / "a").stat().st_mode & 0o777 == 0o600


def test_a_broken_input_keeps_its_last_good_value(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[int | Exception] = iter([1, ConfigurationError("broken"), 2])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    source = Input(read)
    with caplog.at_level(logging.WARNING):
        source.refresh()
    assert source.value == 1
    assert "broken" in caplog.text
    source.refresh()
    assert source.value == 2


def test_a_broken_input_at_the_start_is_an_error(home: Home, tmp_path: Path) -> None:
    home.keys.unlink()
    with pytest.raises(ConfigurationError, match="shoal keys create"):
        ConfigKeeper(service_file=None, topology_file=tmp_path / "topology.json", home=home)


async def test_files_follow_keys_models_and_the_service_file(keeper: ConfigKeeper, home: Home, tmp_path: Path) -> None:
    keeper.render()
    task = asyncio.create_task(keeper.run())
    try:
        new = api_keys.create(home.keys, "bob")
        await until(keeper, config.PUBLIC_ROUTES, new.id)
        add_model(home.models, "resnet-50")
        await until(keeper, config.BALANCER_ROUTES, "resnet-50")
        replace(tmp_path / "service" / "shoal.yaml", "router: {max_request_bytes: 2048}")
        await until(keeper, config.LISTENERS, "2048")
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_broken_service_file_does_not_hold_up_a_revocation(
    keeper: ConfigKeeper, home: Home, tmp_path: Path
) -> None:
    keeper.render()
    task = asyncio.create_task(keeper.run())
    try:
        replace(tmp_path / "service" / "shoal.yaml", "router: [")
        revoked = api_keys.revoke(home.keys, next(iter(api_keys.load_keys(home.keys))).id)
        await until(keeper, config.PUBLIC_ROUTES, revoked.id, there=False)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_kubernetes_mounts_is_followed(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Service file and topology in a ConfigMap, keys and certificate in Secrets, each swapped in its turn."""
    good, other = self_signed(), self_signed()
    config_map, secret, tls = (Mounted(tmp_path / name) for name in ("config", "keys", "tls"))
    files = {"topology.json": (tmp_path / "topology.json").read_text()}
    settings: dict[str, Any] = {
        "auth": {"keys_file": str(tmp_path / "keys" / "keys.json")},
        "router": {"tls": {name: str(tmp_path / "tls" / f"tls.{end}") for name, end in TLS_FILES}},
    }
    config_map.update({**files, "service.yaml": json.dumps(settings)})
    secret.update({"keys.json": home.keys.read_bytes()})
    tls.update({"tls.crt": good.certificate, "tls.key": good.key})
    keeper = ConfigKeeper(
        service_file=tmp_path / "config" / "service.yaml",
        topology_file=tmp_path / "config" / "topology.json",
        home=home,
    )
    keeper.render()
    task = asyncio.create_task(keeper.run())
    try:
        revoked = api_keys.revoke(home.keys, next(iter(api_keys.load_keys(home.keys))).id)
        secret.update({"keys.json": home.keys.read_bytes()})
        await until(keeper, config.PUBLIC_ROUTES, revoked.id, there=False)
        settings["router"]["max_request_bytes"] = 2048
        config_map.update({**files, "service.yaml": json.dumps(settings)})
        await until(keeper, config.LISTENERS, "2048")
        with caplog.at_level(logging.WARNING):
            tls.update({"tls.crt": good.certificate, "tls.key": other.key})
            async with asyncio.timeout(60):
                while "router.tls" not in caplog.text:  # a log tells nobody
                    await asyncio.sleep(0.02)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def worker(pool: str, folder: Path, *models: str) -> AsyncIterator[None]:
    """Of ``pool``, as far as it says what it serves; the topology leads to it."""
    proof = Proof()
    proof.set(models, ready=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((proof.rpc_handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    topology = Topology.load(folder / "topology.json")
    topology.model_copy(update={"pools": {pool: [Endpoint("127.0.0.1", port)]}}).save(folder / "topology.json")
    yield
    await server.stop(None)


@contextlib.asynccontextmanager
async def kept(folder: Path, home: Home, service: str) -> AsyncIterator[ConfigKeeper]:
    (folder / "service" / "shoal.yaml").write_text(service)
    keeper = ConfigKeeper(
        service_file=folder / "service" / "shoal.yaml", topology_file=folder / "topology.json", home=home
    )
    keeper.render()
    task = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(60):
            yield keeper
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


NAMED = "pools: {default: {models: [resnet, '*']}}"
OVERRIDDEN = "models: {resnet: {batchers: 1}}"
MISTYPED = "pools: {default: {models: ['resnte*', 'yolo*']}}"
THEIRS = "pools: {default: {models: [resnet, '*'], engine: triton, triton_url: 'there:8001'}}"


@pytest.mark.parametrize("service", [NAMED, OVERRIDDEN], ids=["by its pool", "by its overrides"])
async def test_a_named_model_that_is_not_listed_is_routed_and_keeps_a_new_router_from_being_ready(
    home: Home, tmp_path: Path, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(tmp_path, home, service) as keeper:
        assert "resnet" in (keeper.folder / config.BALANCER_ROUTES).read_text()
        told = "not ready: the service file names resnet, and no such model is listed"
        while told not in caplog.text:  # a log tells nobody
            await asyncio.sleep(0.02)
        assert not keeper.routes.is_set()
        add_model(home.models, "resnet")
        await keeper.routes.wait()


async def test_models_of_somebody_elses_triton_are_listed_nowhere(home: Home, tmp_path: Path) -> None:
    async with kept(tmp_path, home, THEIRS) as keeper:
        await keeper.routes.wait()


@pytest.mark.parametrize(
    ("service", "listed"), [("", False), (MISTYPED, True)], ids=["in another store", "under another pattern"]
)
async def test_what_ready_workers_serve_is_routed_before_a_new_router_is_ready(
    home: Home, tmp_path: Path, service: str, listed: bool
) -> None:
    if listed:
        add_model(home.models, "resnet")
    async with worker("default", tmp_path, "resnet", "yolo"), kept(tmp_path, home, service) as keeper:
        await keeper.routes.wait()
        assert "pool/default" in (text := (keeper.folder / config.BALANCER_ROUTES).read_text())
        assert "resnet" in text


def replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


async def until(keeper: ConfigKeeper, name: str, text: str, *, there: bool = True) -> None:
    """Waits until a file has ``text``, as Envoy would: by watching for its move."""
    async with asyncio.timeout(60), contextlib.aclosing(changes(keeper.folder)) as moments:
        async for _ in moments:
            content = (keeper.folder / name).read_text()
            json.loads(content)
            if (text in content) is there:
                return
