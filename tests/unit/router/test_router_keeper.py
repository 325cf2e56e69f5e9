from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING

import pytest

from shoal import keys
from shoal.errors import ConfigurationError
from shoal.home import Home
from shoal.router import config
from shoal.router.keeper import Input, Keeper, model_names, write
from shoal.topology import Endpoint, Topology
from shoal.watch import changes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def add_model(store: Path, name: str) -> None:
    (store / name).mkdir(parents=True)
    (store / name / "config.pbtxt").touch()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    keys.create(home.keys, "alice")
    add_model(home.models, "yolo")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "shoal.yaml").touch()
    Topology(
        public=Endpoint("127.0.0.1", 1),
        balancer=Endpoint("127.0.0.1", 2),
        admin=Endpoint("127.0.0.1", 3),
        batchers={"shared": [Endpoint("127.0.0.1", 4)]},
        pools={"default": [Endpoint("127.0.0.1", 5)]},
    ).save(tmp_path / "topology.json")
    return home


@pytest.fixture
def keeper(home: Home, tmp_path: Path) -> Keeper:
    return Keeper(service_file=tmp_path / "service" / "shoal.yaml", topology_file=tmp_path / "topology.json", home=home)


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


def test_models_are_folders_with_a_configuration_and_a_name_fit_for_a_header(tmp_path: Path) -> None:
    for name in ("yolo", "resnet-50", ".partial", "two words", "naïve"):
        add_model(tmp_path, name)
    (tmp_path / "empty").mkdir()
    assert model_names(tmp_path) == ["resnet-50", "yolo"]
    assert model_names(tmp_path / "missing") == []


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
        Keeper(service_file=None, topology_file=tmp_path / "topology.json", home=home)


async def test_files_follow_keys_models_and_the_service_file(keeper: Keeper, home: Home, tmp_path: Path) -> None:
    keeper.render()
    task = asyncio.create_task(keeper.run())
    try:
        new = keys.create(home.keys, "bob")
        await until(keeper, config.PUBLIC_ROUTES, new.id)
        add_model(home.models, "resnet-50")
        await until(keeper, config.BALANCER_ROUTES, "resnet-50")
        replace(tmp_path / "service" / "shoal.yaml", "router: {max_request_bytes: 2048}")
        await until(keeper, config.LISTENERS, "2048")
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_broken_service_file_does_not_hold_up_a_revocation(keeper: Keeper, home: Home, tmp_path: Path) -> None:
    keeper.render()
    task = asyncio.create_task(keeper.run())
    try:
        replace(tmp_path / "service" / "shoal.yaml", "router: [")
        revoked = keys.revoke(home.keys, next(iter(keys.load_keys(home.keys))).id)
        await until(keeper, config.PUBLIC_ROUTES, revoked.id, there=False)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


async def until(keeper: Keeper, name: str, text: str, *, there: bool = True) -> None:
    """Waits until a file has ``text``, as Envoy would: by watching for its move."""
    async with asyncio.timeout(10), contextlib.aclosing(changes(keeper.folder)) as moments:
        async for _ in moments:
            content = (keeper.folder / name).read_text()
            json.loads(content)
            if (text in content) is there:
                return
