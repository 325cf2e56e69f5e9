from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.local import setup, store
from shoal.local.store import create_bucket, find_rclone, store_part
from shoal.pictures.objectstore import Credentials
from shoal.runtime.endpoint import Endpoint
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.spec import Service, parse
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = Credentials("ACCESS", "hush-hush")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    add_tiny_classifier(tmp_path / "home" / "models")
    return Home(tmp_path / "home")


def test_the_secret_is_in_the_environment_alone(tmp_path: Path) -> None:
    part = store_part(Endpoint("127.0.0.1", 20_000), tmp_path, CREDENTIALS)
    assert part.environment["RCLONE_AUTH_KEY"] == '"ACCESS,hush-hush"'
    assert "hush" not in repr(part)
    assert not any("hush" in word for word in part.command)


def test_a_missing_rclone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"needs rclone.*shoal\[local\]"):
        find_rclone()


def test_an_rclone_beside_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "rclone").touch(0o755)
    assert find_rclone() == str(tmp_path / "rclone")


def test_the_bucket_is_a_folder_with_one_for_each_prefix(home: Home) -> None:
    create_bucket(parse("object_store: {url: 's3://pictures/all'}", "s").object_store, home, ["local/", "team/a/"])
    bucket = home.objects / "pictures" / "all"
    assert sorted(path.name for path in bucket.iterdir()) == ["local", "team"]
    assert (bucket / "team" / "a").is_dir()
    assert stat.S_IMODE(home.objects.stat().st_mode) == 0o700


def test_the_first_preparation_makes_all_and_the_second_nothing(home: Home) -> None:
    said: list[str] = []
    setup.prepare(Service(), home, said.append)
    ring, credentials = api_keys.load_keys(home.keys), setup.store_credentials(Service(), home)
    setup.prepare(Service(), home, said.append)
    assert api_keys.load_keys(home.keys) == ring
    assert setup.store_credentials(Service(), home) == credentials
    assert [key.owner for key in ring] == [setup.LOCAL_OWNER]
    assert (home.objects / "images" / "local").is_dir()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (home.keys, home.store_credentials))
    assert said == [], "the store had a model"


def test_the_local_key_is_the_local_owners(home: Home) -> None:
    other = api_keys.create(home.keys, "other")
    local = setup.local_key(Service(), home)
    assert local.owner == setup.LOCAL_OWNER
    assert local.id != other.id
    assert setup.local_key(Service(), home) == local


def test_a_store_elsewhere_needs_nothing_here(home: Home) -> None:
    setup.prepare(parse("object_store: {managed: false}", "s"), home, lambda _: None)
    assert not home.objects.exists()
    assert not home.store_credentials.exists()
