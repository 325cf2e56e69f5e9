"""Envoy's admin socket: what it is asked, and how it is told to leave.

Whoever reaches it can have Envoy log keys, so it is a Unix socket of ours alone, never a port.
https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANSWER_SECONDS = 5.0
_SOCKET = "admin.sock"
_LONGEST_PATH = 107  # bytes; sockaddr_un.sun_path of Linux holds one more, for its end


def admin_socket(folder: Path) -> Path:
    """The admin socket of an Envoy whose files are in ``folder``: there too, unless its path is too long for a socket.

    Then it is in a folder of the system's temporary one, known by the name of ``folder``.
    """
    path = folder / _SOCKET
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"shoal-{os.geteuid()}-{name}" / _SOCKET


def prepare(folder: Path) -> None:
    """Makes the folder of ``admin_socket(folder)`` for us alone, where that is not ``folder`` itself.

    Raises:
        ConfigurationError: it is there, and somebody else's or open to others.
    """
    socket = admin_socket(folder)
    if socket.parent == folder:
        return
    with suppress(FileExistsError):
        socket.parent.mkdir(mode=0o700)
    status = socket.parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{socket.parent}: it isn't ours alone, so Envoy's admin socket can't be there; remove it"
        )


class EnvoyAdmin:
    """Each method raises OSError or aiohttp.ClientError where the admin socket is away or hangs."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)

    async def fail_health(self) -> None:
        """Has ``/ready`` answer 503 and each answer ask for another connection (GOAWAY); calls are taken as before.

        A listener whose ``drain_type`` is MODIFY_ONLY asks for nothing.
        """
        await self._post("/healthcheck/fail")

    async def close_inbound(self) -> None:
        """On inbound listeners: refuses connections, and asks with each answer from now on for another (GOAWAY)."""
        await self._post("/drain_listeners?inboundonly&graceful&skip_exit", "/drain_listeners?inboundonly")

    async def discourage(self) -> None:
        """On every listener: asks with each answer from now on for another connection (GOAWAY)."""
        await self._post("/drain_listeners?graceful&skip_exit")

    async def quit(self) -> None:
        """Ends Envoy."""
        await self._post("/quitquitquit")

    async def statistic(self, names: str) -> int:
        """The sum of all counters and gauges whose whole name the expression ``names`` matches; 0 if there is none."""
        return sum((await self._values(names)).values())

    async def statistics(self, names: Mapping[str, str]) -> dict[str, int]:
        """Such sums by the names that ``names`` gives to expressions of Envoy's."""
        found = await self._values("|".join(names.values()))
        return {
            said: sum(value for name, value in found.items() if re.fullmatch(wanted, name))
            for said, wanted in names.items()
        }

    async def _values(self, names: str) -> dict[str, int]:
        async with self._session() as session, session.get("/stats", params={"filter": f"^({names})$"}) as answer:
            answer.raise_for_status()
            lines = (line.rpartition(": ") for line in (await answer.text()).splitlines())
            return {name: int(value) for name, _, value in lines if value.isdigit()}

    async def _post(self, *paths: str) -> None:
        async with self._session() as session:
            for path in paths:
                async with session.post(path) as answer:
                    answer.raise_for_status()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            "http://admin",
            connector=aiohttp.UnixConnector(self._socket),
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS),
        )
