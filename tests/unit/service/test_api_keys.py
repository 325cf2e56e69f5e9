from __future__ import annotations

import asyncio
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key, KeyRing, create, load_keys, revoke, watch_keys
from support.mounted import Mounted

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "a-secret-of-some-length"


def write(path: Path, *entries: dict[str, object]) -> None:
    path.write_text(json.dumps({"keys": entries}))
    path.chmod(0o600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_new_key_is_found_by_id_and_by_secret(path: Path) -> None:
    key = create(path, "alice", models=["resnet*"], requests_per_second=5)
    ring = load_keys(path)
    assert ring.by_id(key.id) == key
    assert ring.by_secret(key.key) == key
    assert ring.by_secret(key.key + "x") is None
    assert ring.by_secret("\udcff") is None
    assert ring.by_id("nobody") is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_priority_stands_in_the_file_only_where_it_is_not_the_usual_one(path: Path) -> None:
    usual, bulk = create(path, "alice"), create(path, "night", priority=Priority.BULK)
    entries = {entry["id"]: entry for entry in json.loads(path.read_text())["keys"]}
    assert "priority" not in entries[usual.id], "an older version would refuse the file"
    assert entries[bulk.id]["priority"] == "bulk"
    assert [key.priority for key in load_keys(path)] == [Priority.INTERACTIVE, Priority.BULK]


def test_an_unknown_priority_is_an_error(path: Path) -> None:
    write(path, {"id": "k", "key": SECRET, "owner": "o", "priority": "urgent"})
    with pytest.raises(ConfigurationError, match="priority"):
        load_keys(path)


def test_the_prefix_defaults_to_the_owner_and_may_be_empty(path: Path) -> None:
    assert create(path, "alice").prefix == "alice/"
    assert create(path, "alice", prefix="").prefix == ""
    assert create(path, "alice", prefix="a/b/").prefix == "a/b/"


@pytest.mark.parametrize("prefix", ["no-slash", "../", "a/../", "/", "a//", "./", "a b/"])
def test_a_prefix_can_not_leave_its_place(path: Path, prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        create(path, "alice", prefix=prefix)
    assert not path.exists()


@pytest.mark.parametrize("owner", ["", "Alice", "a/b", "a\nb", "-a"])
def test_an_owner_is_fit_for_a_header(path: Path, owner: str) -> None:
    with pytest.raises(ConfigurationError, match="owner"):
        create(path, owner)


def test_models_are_names_or_patterns() -> None:
    key = Key(id="k", key=SECRET, owner="o", models=("resnet*", "yolo"))
    assert key.allows("resnet-50")
    assert key.allows("yolo")
    assert not key.allows("yolo-v8")
    assert not Key(id="k", key=SECRET, owner="o", models=()).allows("yolo")


@pytest.mark.parametrize("rate", [1e-9, 0.0009, -1, float("inf"), float("nan"), 2e6])
def test_a_rate_that_envoy_would_not_take_is_refused(path: Path, rate: float) -> None:
    with pytest.raises(ConfigurationError, match="requests_per_second"):
        create(path, "alice", requests_per_second=rate)
    assert not path.exists()


def test_revoking_takes_only_that_key(path: Path) -> None:
    first, second = create(path, "alice"), create(path, "bob")
    assert revoke(path, first.id) == first
    assert list(load_keys(path)) == [second]
    with pytest.raises(ConfigurationError, match=first.id):
        revoke(path, first.id)


def test_secrets_stay_out_of_repr_and_errors(path: Path) -> None:
    assert SECRET not in repr(Key(id="k", key=SECRET, owner="o"))
    assert SECRET not in repr(KeyRing([Key(id="k", key=SECRET, owner="o")]))
    for broken in ({"id": "k", "key": SECRET + "\n", "owner": "o"}, {"id": "k", "key": SECRET}, SECRET):
        write(path, broken)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError) as caught:
            load_keys(path)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    create(path, "alice")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_keys(path)


def test_a_mounted_secret_keeps_the_modes_that_the_kubelet_set(path: Path) -> None:
    Mounted(path.parent).update({path.name: document("k")})
    assert len(load_keys(path)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": {}}', '{"keys": [], "more": 1}', "\xff", '{"keys": [1]}'])
def test_a_broken_file_is_named(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        load_keys(path)


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="shoal keys create"):
        load_keys(path)


def test_ids_and_secrets_are_unique(path: Path) -> None:
    write(path, {"id": "k", "key": SECRET, "owner": "o"}, {"id": "k", "key": SECRET + "2", "owner": "o"})
    with pytest.raises(ConfigurationError, match="two keys"):
        load_keys(path)
    write(path, {"id": "k", "key": SECRET, "owner": "o"}, {"id": "l", "key": SECRET, "owner": "o"})
    with pytest.raises(ConfigurationError, match="same secret"):
        load_keys(path)


def test_two_writers_lose_no_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create(path, "alice"), range(24)))
    assert {key.id for key in load_keys(path)} == {key.id for key in made}
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


async def test_watching_yields_the_present_keys_and_each_good_change(path: Path) -> None:
    first = create(path, "alice")
    async with asyncio.timeout(60), contextlib.aclosing(watch_keys(path)) as rings:
        assert [key.id for key in await anext(rings)] == [first.id]
        second = break_and_mend(path)
        assert [key.id for key in await anext(rings)] == [second.id]


def break_and_mend(path: Path) -> Key:
    path.write_text("broken")
    path.unlink()
    return create(path, "bob")


async def test_watching_sees_the_swap_of_a_mounted_secret(path: Path) -> None:
    secret = Mounted(path.parent)
    secret.update({path.name: document("k1")})
    async with asyncio.timeout(60), contextlib.aclosing(watch_keys(path)) as rings:
        assert [key.id for key in await anext(rings)] == ["k1"]
        secret.update({path.name: document("k2")})
        assert [key.id for key in await anext(rings)] == ["k2"]


def document(key_id: str) -> str:
    return json.dumps({"keys": [{"id": key_id, "key": SECRET, "owner": "o"}]})
