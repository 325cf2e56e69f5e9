"""A proxy before an object store, whose GETs of some objects never end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from shoal.runtime.endpoint import Endpoint

_LARGEST_BODY = 64 * 2**20
_STOP_SECONDS = 0.1
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


@asynccontextmanager
async def store_proxy(listen: Endpoint, store: Endpoint, hanging: Collection[str]) -> AsyncGenerator[None]:
    """Passes on what comes to ``listen``, but for GETs of objects that one of the ``hanging`` uuids names.

    Headers go through unchanged, the host's name too, so that signatures stay valid.
    """
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.Response:
            if request.method == "GET" and request.path.rpartition("/")[2].removesuffix(".jpg") in hanging:
                await asyncio.Event().wait()
            url = URL(f"http://{store}{request.raw_path}", encoded=True)
            body = await request.read()
            async with session.request(request.method, url, headers=request.headers, data=body) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=answer.status, headers=headers, body=await answer.read())

        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, *listen).start()
        try:
            yield
        finally:
            await runner.cleanup()
