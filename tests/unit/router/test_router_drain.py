from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from shoal.router import drain as module
from shoal.router.drain import Departure, depart, drain
from shoal.runtime.envoy_admin import EnvoyAdmin, admin_socket, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import pytest

FAIL = "/healthcheck/fail"
CLOSE = ["/drain_listeners?inboundonly&graceful&skip_exit", "/drain_listeners?inboundonly"]
DISCOURAGE = "/drain_listeners?graceful&skip_exit"
QUIT = "/quitquitquit"


class FakeEnvoy:
    """Remembers what it was told; ``calls`` are in flight, and one ends each time they are asked for."""

    def __init__(self, calls: int = 0) -> None:
        self.told: list[str] = []
        self.calls = calls
        self.endless = False

    async def post(self, request: web.Request) -> web.Response:
        self.told.append(request.path_qs.replace("=", ""))
        return web.Response()

    async def stats(self, _: web.Request) -> web.Response:
        self.told.append(f"{self.calls} in flight")
        answer = web.Response(text=f"http.public.downstream_rq_active: {self.calls}\n")
        self.calls -= not self.endless
        return answer


@contextlib.asynccontextmanager
async def running(envoy: FakeEnvoy, folder: Path) -> AsyncGenerator[EnvoyAdmin]:
    app = web.Application()
    app.router.add_get("/stats", envoy.stats)
    app.router.add_post("/{path:.*}", envoy.post)
    runner = web.AppRunner(app)
    await runner.setup()
    prepare(folder)
    site = web.UnixSite(runner, str(admin_socket(folder)))
    await site.start()
    try:
        yield EnvoyAdmin(admin_socket(folder))
    finally:
        await runner.cleanup()


async def test_draining_waits_for_the_last_call(tmp_path: Path) -> None:
    envoy = FakeEnvoy(calls=2)
    async with running(envoy, tmp_path) as admin:
        await drain(admin, 10)
    assert envoy.told == [*CLOSE, "2 in flight", "1 in flight", "0 in flight"]


async def test_draining_has_a_limit(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    envoy = FakeEnvoy(calls=1)
    envoy.endless = True
    async with running(envoy, tmp_path) as admin:
        await drain(admin, 0.1)
    assert "still in flight" in caplog.text


async def test_a_foreign_envoy_leaves_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "HAND_OVER_SECONDS", 0.0)
    envoy = FakeEnvoy(calls=1)
    async with running(envoy, tmp_path) as admin:
        await depart(admin, Departure(lame_duck_seconds=0, drain_seconds=10))
    assert envoy.told == [FAIL, *CLOSE, "1 in flight", "0 in flight", DISCOURAGE, QUIT]


async def test_calls_are_taken_as_before_while_it_is_a_lame_duck(tmp_path: Path) -> None:
    envoy = FakeEnvoy()
    async with running(envoy, tmp_path) as admin:
        leaving = asyncio.create_task(depart(admin, Departure(lame_duck_seconds=3600)))
        async with asyncio.timeout(60):
            while not envoy.told:  # the fake tells nobody
                await asyncio.sleep(0)
        assert envoy.told == [FAIL]
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def test_an_envoy_that_is_gone_already_is_let_be(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with running(FakeEnvoy(), tmp_path) as admin:
        pass
    with caplog.at_level(logging.WARNING):
        await depart(admin, Departure(lame_duck_seconds=3600))
    assert "there is no Envoy" in caplog.text
