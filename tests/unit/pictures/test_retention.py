from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from obstore.store import LocalStore, MemoryStore

from shoal.errors import Unavailable
from shoal.pictures.objectstore import Credentials, open_store
from shoal.pictures.reference import object_key
from shoal.pictures.retention import expire
from shoal.service import spec

if TYPE_CHECKING:
    from pathlib import Path


def picture(number: int, prefix: str = "") -> str:
    return object_key(prefix, str(UUID(int=number)))


def test_old_pictures_are_removed() -> None:
    store = MemoryStore()
    for number in range(2500):
        store.put(picture(number, "team/"), b"x")
    now = datetime.now(UTC)
    assert expire(store, 1, now=now) == 0
    assert expire(store, 1, now=now + timedelta(hours=2)) == 2500
    assert store.list().collect() == []


def test_what_is_no_picture_of_ours_stays() -> None:
    """A bucket may hold published models too."""
    store = MemoryStore()
    others = ["manifests/tiny/1.json", "holiday.jpg", f"{UUID(int=1)}.png", f"{UUID(int=1)}", f"{UUID(int=1)}.jpg/x"]
    for key in others:
        store.put(key, b"x")
    assert expire(store, 1, now=datetime.now(UTC) + timedelta(hours=2)) == 0
    assert len(store.list().collect()) == len(others)


def test_a_picture_that_vanishes_is_no_error(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(20):
        store.put(picture(number), b"x")
    # Both list first and then delete: each finds some of the files gone.
    later = datetime.now(UTC) + timedelta(hours=1)
    expire(store, 0.01, now=later)
    assert expire(store, 0.01, now=later) == 0


def test_a_store_that_is_away() -> None:
    store = open_store(spec.ObjectStore(url="s3://bucket"), Credentials("key", "hunter2"), "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="away") as caught:
        expire(store, 1)
    assert "hunter2" not in str(caught.value)
