"""What ends with a key: the batcher's watch of keys, and routers with a real Envoy that answer it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batcher.core import open_channel
from shoal.batcher.key_watch import KeyWatch
from shoal.runtime.envoy_admin import EnvoyAdmin
from shoal.service import api_keys
from shoal.service.api_keys import KeyRing, load_keys
from shoal.service.identity import Identity
from support.router_rig import PATIENCE, Rig, add_model, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shoal.service.api_keys import Key


@asynccontextmanager
async def watching(rig: Rig) -> AsyncGenerator[KeyWatch]:
    """A batcher's watch, through the load balancer of ``rig``."""
    async with open_channel(str(rig.topology.balancer)) as channel, asyncio.timeout(PATIENCE):
        watch = KeyWatch(channel)
        try:
            yield watch
        finally:
            await watch.close()


def change(rig: Rig, key: Key, **fields: Any) -> None:
    """Another word for the same key, in the router's file."""
    others = [other for other in load_keys(rig.home.keys) if other.id != key.id]
    api_keys._write(rig.home.keys, KeyRing([*others, key.model_copy(update=fields)]))


async def until_asked(rig: Rig, times: int) -> None:
    """Waits until batchers have asked the router so many times more."""
    admin, name = EnvoyAdmin(rig.admin), "http.balancer.downstream_rq_total"
    wanted = await admin.statistic(name) + times
    while await admin.statistic(name) < wanted:  # each a round trip
        await asyncio.sleep(0.02)


async def test_what_a_revoked_key_has_open_ends_and_what_others_have_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, watching(rig) as watch:
        bob = api_keys.create(rig.home.keys, "bob", models=["yolo"])
        await rig.until("OK", bob.key)
        ended = {key.id: asyncio.Event() for key in (rig.alice, bob)}
        for key in (rig.alice, bob):
            watch.follow(Identity.of(key).write(), "yolo", ended[key.id].set)
        await until_asked(rig, 5)
        assert not any(event.is_set() for event in ended.values())
        api_keys.revoke(rig.home.keys, rig.alice.id)
        await ended[rig.alice.id].wait()
        await until_asked(rig, 5)
        assert not ended[bob.id].is_set()


@pytest.mark.parametrize(
    ("fields", "still"),
    [({"models": ("resnet",)}, "resnet"), ({"models": ()}, None), ({"requests_per_second": 5.0}, None)],
)
async def test_what_a_changed_key_has_open_ends_where_its_old_word_holds_no_more(
    tmp_path: Path, fields: dict[str, Any], still: str | None
) -> None:
    async with running(tmp_path) as rig, watching(rig) as watch:
        add_model(rig.home, "resnet")
        await rig.until("OK", rig.alice.key, "resnet")
        ended = {model: asyncio.Event() for model in ("yolo", "resnet")}
        for model, event in ended.items():
            watch.follow(Identity.of(rig.alice).write(), model, event.set)
        await until_asked(rig, 5)
        change(rig, rig.alice, **fields)
        for model, event in ended.items():
            if model != still:
                await event.wait()
        if still:
            await until_asked(rig, 5)
            assert not ended[still].is_set()


async def test_a_key_that_one_router_knows_already_is_not_ended_by_another(tmp_path: Path) -> None:
    async with running(tmp_path / "one") as knows, running(tmp_path / "other") as late, watching(late) as watch:
        bob = api_keys.create(knows.home.keys, "bob")
        await knows.until("OK", bob.key)
        ended = asyncio.Event()
        watch.follow(Identity.of(bob).write(), "yolo", ended.set)
        await until_asked(late, 10)
        assert not ended.is_set()
        change(late, bob)
        await late.until("OK", bob.key)
        await until_asked(late, 5)
        api_keys.revoke(late.home.keys, bob.id)
        await ended.wait()


async def test_while_a_router_leaves_nothing_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, watching(rig) as watch:
        ended = asyncio.Event()
        watch.follow(Identity.of(rig.alice).write(), "yolo", ended.set)
        await until_asked(rig, 5)
        rig.stop.set()
        await asyncio.wait({rig.router})
        for _ in range(3):
            await watch._look()
        assert not ended.is_set()


async def test_only_a_load_balancer_tells_of_keys(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        for path in ("/shoal.router.v1.Keys/Version", "/shoal.router.v1.Keys/Check"):
            assert await rig.code(rig.alice.key, path=path) == "UNIMPLEMENTED"
            assert await rig.code(None, path=path) == "UNAUTHENTICATED"
