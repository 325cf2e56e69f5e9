"""``shoal serve image-retention`` against a real S3 server."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from shoal.pictures.reference import object_key
from support.s3 import Server, running_s3
from support.stack import shoal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, NEW = (object_key("team/", str(UUID(int=number))) for number in (1, 2))
MODEL = "manifests/tiny/1.json"
_DAY = 86_400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Its bucket has an old picture, a new one, and an old model."""
    with running_s3(tmp_path, "images") as running:
        store = running.store()
        for key in (OLD, NEW, MODEL):
            store.put(key, b"x")
        for key in (OLD, MODEL):
            written = time.time() - 2 * _DAY
            os.utime(tmp_path / "objects" / "images" / key, (written, written))
        running.stop()  # it remembers what it was told
        running.start()
        yield running


def service_file(tmp_path: Path, server: Server, **changes: object) -> Path:
    settings = {"url": server.url, "endpoint": server.address, "credentials_file": str(server.credentials_file)}
    file = tmp_path / "shoal.yaml"
    file.write_text(json.dumps({"object_store": settings | changes}))
    return file


def test_only_pictures_that_are_old_enough_go(tmp_path: Path, server: Server) -> None:
    done = shoal(tmp_path, "serve", "image-retention", "--service", service_file(tmp_path, server, retention_hours=24))
    assert "removed 1 pictures older than 24 h" in done.stderr
    assert {found["path"] for found in server.store().list().collect()} == {NEW, MODEL}


def test_a_prefix_is_all_there_is(tmp_path: Path, server: Server) -> None:
    elsewhere = service_file(tmp_path, server, url=f"{server.url}/others")
    assert "removed 0 pictures" in shoal(tmp_path, "serve", "image-retention", "--service", elsewhere).stderr


def test_a_store_that_is_away_is_a_failed_job(tmp_path: Path, server: Server) -> None:
    file = service_file(tmp_path, server)
    server.stop()
    done = shoal(tmp_path, "serve", "image-retention", "--service", file, check=False)
    assert done.returncode == 1
    assert "the object store is away" in done.stderr


def test_the_store_of_shoal_up_keeps_itself(tmp_path: Path) -> None:
    file = tmp_path / "shoal.yaml"
    file.write_text("object_store: {url: s3://images}")
    done = shoal(tmp_path, "serve", "image-retention", "--service", file, check=False)
    assert done.returncode == 2
    assert "managed: false" in done.stderr
