from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ShoalError
from shoal.modelstore.publishing.remote import Remote
from shoal.pictures.objectstore import Credentials, open_store
from shoal.router.model_names import Exact, Folder, Published, choose
from shoal.service import spec
from shoal.service.home import Home
from shoal.service.spec import Service, parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shoal.router.model_names import ModelNames

NEVER = 3600.0


def add_model(store: Path, name: str) -> None:
    (store / name).mkdir(parents=True)
    (store / name / "config.pbtxt").touch()


def publish(bucket: Path, name: str) -> None:
    (bucket / "manifests" / name).mkdir(parents=True)
    (bucket / "manifests" / name / "1.json").touch()


@contextlib.asynccontextmanager
async def following(models: ModelNames) -> AsyncGenerator[asyncio.Event]:
    """An event that is set at each change."""
    changed = asyncio.Event()
    task = asyncio.create_task(models.follow(changed.set))
    try:
        async with asyncio.timeout(60):
            yield changed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def bucket_of(tmp_path: Path) -> Remote:
    return Remote.open(spec.ObjectStore(url=f"file://{tmp_path}/bucket"))


def away() -> Remote:
    settings = spec.ObjectStore(url="s3://bucket")
    return Remote(open_store(settings, Credentials("key", "hunter2"), "http://127.0.0.1:9"), "s3://bucket")


def test_a_folder_comes_before_a_bucket_and_a_bucket_before_names(tmp_path: Path) -> None:
    home = Home(tmp_path)
    bucket = parse(f"model_store: {{url: 'file://{tmp_path}/bucket'}}", "s")
    assert isinstance(choose(Service(), home), Exact)
    assert isinstance(choose(bucket, home), Published)
    home.models.mkdir()
    assert isinstance(choose(bucket, home), Folder)


def test_exact_names_are_those_without_a_pattern() -> None:
    service = parse("pools: {a: {models: [yolo, 'resnet*']}, b: {models: [unet, '*']}}\nmodels: {vgg: {}}", "s")
    assert Exact().names(service) == {"yolo", "unet", "vgg"}


def test_models_are_folders_with_a_configuration_and_a_name_fit_for_a_header(tmp_path: Path) -> None:
    for name in ("yolo", "resnet-50", ".partial", "two words", "naïve"):
        add_model(tmp_path, name)
    (tmp_path / "empty").mkdir()
    assert Folder(tmp_path, NEVER).names(Service()) == {"resnet-50", "yolo"}
    assert Folder(tmp_path / "missing", NEVER).names(Service()) == set()


async def test_a_folder_is_watched(tmp_path: Path) -> None:
    models = Folder(tmp_path / "new", NEVER)
    async with following(models) as changed:
        await changed.wait()  # the watch stands
        changed.clear()
        add_model(tmp_path / "new", "yolo")
        while "yolo" not in models.names(Service()):
            await changed.wait()
            changed.clear()


async def test_a_bucket_is_listed_again_and_again(tmp_path: Path) -> None:
    publish(tmp_path / "bucket", "yolo")
    models = Published(bucket_of(tmp_path), tmp_path / "run" / "published.json", 0.01)
    await models.look()
    assert models.names(Service()) == {"yolo"}
    publish(tmp_path / "bucket", "two words")
    publish(tmp_path / "bucket", "unet")
    async with following(models) as changed:
        await changed.wait()
    assert models.names(Service()) == {"unet", "yolo"}


async def test_a_bucket_that_was_never_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShoalError, match="away"):
        await Published(away(), tmp_path / "published.json", NEVER).look()


async def test_what_was_listed_last_survives_a_restart_while_the_bucket_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path / "bucket", "yolo")
    kept = tmp_path / "published.json"
    await Published(bucket_of(tmp_path), kept, NEVER).look()
    models = Published(away(), kept, NEVER)
    await models.look()
    with caplog.at_level(logging.WARNING):
        async with following(models):
            while "keeps the models" not in caplog.text:  # a log tells nobody
                await asyncio.sleep(0)
    assert models.names(Service()) == {"yolo"}
