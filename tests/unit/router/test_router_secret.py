"""A Secret followed at an API server: which of the two copies counts when."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.router.keyfile import WatchedSecret
from shoal.router.secret import Api, SecretWatch
from shoal.service.api_keys import Key
from support.kubernetes_api import KubernetesApi, kubernetes_api
from support.mounted import Mounted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "shoal-keys"
ALICE, BOB = (Key(id=name, key=name * 5, owner=name) for name in ("alice", "bobby"))
PATIENCE = 60.0


def file_of(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.model_dump() for key in keys]}).encode()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[KubernetesApi, SecretWatch]]:
    async with kubernetes_api(folder) as (api, environment):
        yield api, SecretWatch(Api.of_pod(api.account, environment), NAME)


class Rig:
    """A Secret, its mounted copy, and the router's view."""

    def __init__(self, folder: Path, api: KubernetesApi, watch: SecretWatch) -> None:
        self.api, self.watch = api, watch
        self.mounted = Mounted(folder / "mounted")
        self.mounted.update({"keys.json": file_of(ALICE)})
        self.keys = WatchedSecret(folder / "mounted" / "keys.json", watch, folder / "run" / "keys.json")
        self.changed: asyncio.Queue[None] = asyncio.Queue()

    @property
    def ids(self) -> set[str]:
        return {key.id for key in self.keys.read()}

    async def change(self) -> None:
        """Waits for one that the API told of."""
        async with asyncio.timeout(PATIENCE):
            await self.changed.get()


@asynccontextmanager
async def followed(folder: Path) -> AsyncIterator[Rig]:
    async with running(folder) as (api, watch):
        rig = Rig(folder, api, watch)
        following = asyncio.create_task(rig.keys.follow(lambda: rig.changed.put_nowait(None)))
        try:
            yield rig
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def test_the_first_content_is_the_present_one_and_changes_follow(tmp_path: Path) -> None:
    async with running(tmp_path) as (api, watch), asyncio.timeout(PATIENCE), aclosing(watch.contents()) as contents:
        api.put(NAME, keys_json=b"first")
        api.put("another", keys_json=b"nobody's")
        assert await anext(contents) == "first"
        api.put("another", keys_json=b"nobody's")
        api.put(NAME, keys_json=b"second")
        assert await anext(contents) == "second"
        assert watch.current
        api.delete(NAME)
        api.put(NAME, other=b"of no use")
        api.put(NAME, keys_json=b"third")
        assert await anext(contents) == "third"
        assert api.queries[0]["fieldSelector"] == f"metadata.name={NAME}"
    assert not watch.current


@pytest.mark.parametrize("end", ["forget", "end_watches"])
async def test_a_watch_that_ends_begins_anew(tmp_path: Path, end: str) -> None:
    async with running(tmp_path) as (api, watch), asyncio.timeout(PATIENCE), aclosing(watch.contents()) as contents:
        api.put(NAME, keys_json=b"first")
        assert await anext(contents) == "first"
        getattr(api, end)()
        api.put(NAME, keys_json=b"second")
        while (content := await anext(contents)) != "second":
            assert content == "first"
        assert len(api.queries) >= 1


async def test_a_token_is_read_for_each_watch(tmp_path: Path) -> None:
    async with running(tmp_path) as (api, watch), asyncio.timeout(PATIENCE), aclosing(watch.contents()) as contents:
        api.put(NAME, keys_json=b"first")
        assert await anext(contents) == "first"
        api.token = "the next one"
        (api.account / "token").write_text(api.token)
        api.end_watches()
        assert await anext(contents) == "first"


async def test_while_the_secret_is_followed_its_copy_counts_for_nothing(tmp_path: Path) -> None:
    async with followed(tmp_path) as rig:
        assert rig.ids == {"alice"}
        rig.api.put(NAME, keys_json=file_of(ALICE, BOB))
        await rig.change()
        assert rig.ids == {"alice", "bobby"}
        rig.api.put(NAME, keys_json=file_of(BOB))
        await rig.change()
        assert rig.ids == {"bobby"}
        rig.mounted.update({"keys.json": file_of(ALICE, BOB)})  # the kubelet is a change behind
        assert rig.ids == {"bobby"}


async def test_a_secret_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    async with followed(tmp_path) as rig:
        rig.api.put(NAME, keys_json=file_of())
        await rig.change()
        assert rig.ids == set(), "whatever the mounted copy has"


async def test_an_older_copy_does_not_come_back_once_the_api_is_away(tmp_path: Path) -> None:
    async with followed(tmp_path) as rig:
        rig.api.put(NAME, keys_json=file_of(BOB))
        await rig.change()
        rig.api.refuses = True
        rig.api.forget()
        async with asyncio.timeout(PATIENCE):
            while rig.watch.current:  # of another task
                await asyncio.sleep(0)
        assert rig.ids == {"bobby"}, "the mounted copy is older"
        rig.mounted.update({"keys.json": file_of()})
        assert rig.ids == set(), "and counts once it changes"


async def test_broken_keys_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with followed(tmp_path) as rig:
        rig.api.put(NAME, keys_json=file_of(BOB))
        await rig.change()
        rig.api.put(NAME, keys_json=b"{broken")
        rig.api.put(NAME, keys_json=file_of(ALICE, BOB))
        await rig.change()
        assert rig.ids == {"alice", "bobby"}
    assert "keys stay as they were" in caplog.text
    assert not any(key.key in caplog.text for key in (ALICE, BOB))


async def test_an_api_that_refuses_leaves_the_mounted_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with followed(tmp_path) as rig:
        rig.api.refuses = True
        async with asyncio.timeout(PATIENCE):
            while "answers 403" not in caplog.text:  # of another task
                await asyncio.sleep(0.01)
        rig.mounted.update({"keys.json": file_of(BOB)})
        assert rig.ids == {"bobby"}


def test_outside_of_a_pod_the_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="in a pod alone"):
        Api.of_pod(environment={})
