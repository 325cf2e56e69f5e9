"""What the console's page asks, answered by the process that keeps Envoy's files."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aiohttp

from shoal.console import server
from shoal.router.console import socket_of
from shoal.runtime.envoy_admin import EnvoyAdmin, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.router.keeper import ConfigKeeper

_REFUSED: Final = {
    "the API key is missing, unknown or revoked": r"http\.public\.api_key_auth\.unauthorized",
    "the API key may not call the model": r"http\.public\.api_key_auth\.forbidden",
    "the API key's rate limit": r"keys\.http_local_rate_limit\.rate_limited",
    "too many connections": r"connection_limit\.public\.limited_connections",
    "too much metadata": r"http\.public\.rbac\.denied",
}
"""Reasons, and Envoy's counters of them, as expressions."""


@asynccontextmanager
async def attending(keeper: ConfigKeeper) -> AsyncIterator[None]:
    """Answers the page's questions meanwhile, if there is a page when it begins."""
    if not keeper.service.value.router.console:
        yield
        return
    keeper.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prepare(keeper.folder)
    admin = EnvoyAdmin(keeper.admin)

    async def refused() -> dict[str, int]:
        try:
            return await admin.statistics(_REFUSED)
        except (aiohttp.ClientError, OSError):  # the rest is told without it
            return {}

    async with server.serving(server.Console(keeper.known, refused), socket_of(keeper.admin)):
        yield
