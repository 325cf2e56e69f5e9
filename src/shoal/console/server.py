"""Answers the page's questions over a Unix socket; Envoy asks there, having checked the key.

What parts tell is worked out once for all who look: batchers are asked every second at the most, workers and names
less often, and only while somebody looks.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web

from shoal.console import parts
from shoal.console.requests import explanation
from shoal.console.shared import Shared
from shoal.console.status import Caller, status
from shoal.errors import HTTP_STATUS, InvalidRequest
from shoal.explain.inquiry import ask
from shoal.pictures.reference import canonical_uuid
from shoal.service.identity import CLIENT_HEADER, MODELS_HEADER, Identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from pydantic import BaseModel

    from shoal.console.parts import Address, News
    from shoal.console.status import Known
    from shoal.explain.views import Glances

STATUS_PATH: Final = "/v1/status"
REQUESTS_PATH: Final = "/v1/requests/"
BATCHERS_SECONDS, WORKERS_SECONDS, GLANCES_SECONDS = 0.8, 3.0, 2.0
"""How old an answer may be."""
MOST_OWNERS: Final = 64
"""Whose requests are looked for at a time; the others' answers are forgotten."""


class Console:
    """What the page may ask.

    Args:
        known: What the router itself knows, at this moment.
        refused: The router's own refusals, counted by reason.
    """

    def __init__(self, known: Callable[[], Known], refused: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        self._known = known
        self._refused = refused
        self._addresses = Shared(self._look_up, WORKERS_SECONDS)
        self._batchers = Shared(self._ask_batchers, BATCHERS_SECONDS)
        self._workers = Shared(self._ask_workers, WORKERS_SECONDS)
        self._glances: OrderedDict[frozenset[str], Shared[Glances]] = OrderedDict()

    async def status(self, request: web.Request) -> web.Response:
        """What runs, as far as the caller may see it."""
        known = self._known()
        caller = _caller(request, known)
        (_, silent), batchers, workers, requests, refused = await asyncio.gather(
            self._addresses.get(),
            self._batchers.get(),
            self._workers.get(),
            self._of(caller.key_ids).get(),
            self._refused(),
        )
        news = [*silent, *batchers, *workers]
        return _json(status(caller, known, news, requests, refused))

    async def request(self, request: web.Request) -> web.Response:
        """What became of one request."""
        caller = _caller(request, self._known())
        try:
            image_uuid = canonical_uuid(request.match_info["uuid"])
        except InvalidRequest as error:
            refused = {"code": int(error.code), "message": str(error), "details": []}
            return web.json_response(refused, status=HTTP_STATUS[error.code])
        found, _ = await self._addresses.get()
        told = await ask(image_uuid, {part.name: part.metrics for part in found if part.role not in parts.OTHERS})
        view = explanation(image_uuid, told, caller.key_ids)
        return _json(view.model_copy(update={"requests": tuple(e for e in view.requests if caller.may_call(e.model))}))

    def _of(self, keys: frozenset[str]) -> Shared[Glances]:
        """The requests of some keys."""
        if keys not in self._glances:
            self._glances[keys] = Shared(partial(self._ask_glances, keys), GLANCES_SECONDS)
        self._glances.move_to_end(keys)
        while len(self._glances) > MOST_OWNERS:
            self._glances.popitem(last=False)
        return self._glances[keys]

    async def _look_up(self) -> tuple[list[Address], list[News]]:
        return await parts.addresses(self._known().topology.telling)

    async def _ask_batchers(self) -> list[News]:
        return await parts.ask_batchers((await self._addresses.get())[0])

    async def _ask_workers(self) -> list[News]:
        found, _ = await self._addresses.get()
        workers, others = await asyncio.gather(parts.ask_workers(found), parts.ask_others(found))
        return workers + others

    async def _ask_glances(self, keys: frozenset[str]) -> Glances:
        return await parts.glances((await self._addresses.get())[0], keys)


@asynccontextmanager
async def serving(console: Console, path: Path) -> AsyncIterator[None]:
    """Answers at the Unix socket ``path``, which is ours alone, meanwhile."""
    application = web.Application()
    application.router.add_get(STATUS_PATH, console.status)
    application.router.add_get(REQUESTS_PATH + "{uuid:.*}", console.request)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, _listening(path)).start()
        yield
    finally:
        await runner.cleanup()


def _listening(path: Path) -> socket.socket:
    """What an earlier process left there goes."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    path.chmod(0o600)
    return made


def _caller(request: web.Request, known: Known) -> Caller:
    """Whom the router found to call. Raises HTTPForbidden where it says nobody."""
    found = Identity.parse(request.headers.get(CLIENT_HEADER, ""))
    if found is None:
        raise web.HTTPForbidden(text="the router names no caller")
    return Caller.of(found, request.headers.get(MODELS_HEADER), known)


def _json(view: BaseModel) -> web.Response:
    return web.Response(
        text=view.model_dump_json(), content_type="application/json", headers={"cache-control": "no-store"}
    )
