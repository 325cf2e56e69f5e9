from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from shoal.errors import ConfigurationError
from shoal.pictures.objectstore import (
    Credentials,
    create_credentials,
    load_credentials,
    open_store,
    presign_puts,
)
from shoal.service import spec
from support.mounted import Mounted

if TYPE_CHECKING:
    from pathlib import Path

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
ADDRESS = "http://127.0.0.1:9"


def test_credentials_keep_their_secret() -> None:
    assert "hunter2" not in repr(Credentials("id", "hunter2"))
    assert "hunter2" not in str(Credentials("id", "hunter2"))


def test_created_credentials_are_private_random_and_can_be_loaded(tmp_path: Path) -> None:
    first = create_credentials(tmp_path / "a" / "one.json")
    second = create_credentials(tmp_path / "two.json")
    assert load_credentials(tmp_path / "a" / "one.json") == first
    assert first.secret_access_key != second.secret_access_key
    assert len(first.access_key_id) >= 20
    assert len(first.secret_access_key) >= 20
    assert "," not in first.access_key_id + first.secret_access_key
    assert (tmp_path / "two.json").stat().st_mode & 0o777 == 0o600


def test_credentials_are_never_overwritten(tmp_path: Path) -> None:
    create_credentials(tmp_path / "one.json")
    with pytest.raises(ConfigurationError, match="can't be created: File exists"):
        create_credentials(tmp_path / "one.json")


def test_credentials_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    create_credentials(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="mode 0640 lets others read it; run: chmod 600"):
        load_credentials(path)


def test_credentials_in_a_mounted_secret_keep_the_modes_that_the_kubelet_set(tmp_path: Path) -> None:
    made = create_credentials(tmp_path / "one.json")
    Mounted(tmp_path / "secret").update({"one.json": (tmp_path / "one.json").read_bytes()})
    assert load_credentials(tmp_path / "secret" / "one.json") == made


@pytest.mark.parametrize("content", [
    "not json", "[]", '{"access_key_id": "a"}', '{"access_key_id": "a", "secret_access_key": 5}',
    '{"access_key_id": "", "secret_access_key": "hunter2"}',
])  # fmt: skip
def test_files_that_hold_no_credentials(tmp_path: Path, content: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"one\.json: .*access_key_id and secret_access_key") as caught:
        load_credentials(path)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json: can't be read: No such file"):
        load_credentials(tmp_path / "none.json")


def test_extra_keys_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"access_key_id": "a", "secret_access_key": "b", "comment": "c"}))
    path.chmod(0o600)
    assert load_credentials(path) == Credentials("a", "b")


def test_each_url_opens_its_kind_of_store(tmp_path: Path) -> None:
    assert isinstance(open_store(spec.ObjectStore(url="memory://"), None, None), MemoryStore)
    folder = spec.ObjectStore(url=f"file://{tmp_path}/new")
    assert isinstance(open_store(folder, None, None), LocalStore)
    assert (tmp_path / "new").is_dir()
    store = open_store(spec.ObjectStore(url="s3://bucket/below"), Credentials("key", "hunter2"), ADDRESS)
    assert isinstance(store, S3Store)
    assert store.prefix == "below"
    assert "hunter2" not in repr(store)


def test_a_url_that_makes_no_sense() -> None:
    with pytest.raises(ConfigurationError, match=r"object_store\.url az://"):
        open_store(spec.ObjectStore(url="az://"), None, None)


async def test_presigned_puts_are_below_the_bucket_in_order() -> None:
    settings = spec.ObjectStore(url="s3://bucket", endpoint=ADDRESS)
    store = open_store(settings, Credentials("key", "hunter2"), None)
    first, second = await presign_puts(store, ["a/1.jpg", "a/2.jpg"], 900)
    assert urlsplit(first).path == "/bucket/a/1.jpg"
    assert urlsplit(second).path == "/bucket/a/2.jpg"
    assert "X-Amz-Expires=900" in first
    assert "hunter2" not in first + second


async def test_other_stores_have_no_presigned_puts() -> None:
    with pytest.raises(ConfigurationError, match="presigned uploads need"):
        await presign_puts(MemoryStore(), ["a"], 900)
