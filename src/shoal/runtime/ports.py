"""TCP ports on this machine."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint

LOOPBACK = "127.0.0.1"

_LOWEST = 20_000
_TRIES = 1_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class FreePorts:
    """Gives free loopback ports, each once.

    They stay out of the range that the kernel gives to outgoing connections: a part that restarts must find its port
    free again, and none of the service's own thousands of connections may sit on it meanwhile.

    A port stays reserved until this process ends: no other process is given it before its part listens there.
    """

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._highest = _first_ephemeral() - 1

    def __call__(self) -> Endpoint:
        """A free endpoint on the loopback address."""
        for _ in range(_TRIES):
            port = random.randint(_LOWEST, self._highest)  # not a secret
            if port not in self._given and _reserve(port):
                self._given.add(port)
                return Endpoint(LOOPBACK, port)
        raise ConfigurationError(f"no free TCP port found between {_LOWEST} and {self._highest}")


def _reserve(port: int) -> bool:
    """Keeps a loopback port from others who reserve; whether it could.

    The socket is bound and doesn't listen, which leaves the port to every server with SO_REUSEADDR: as good as all.
    """
    holder = socket.socket()
    try:
        holder.bind((LOOPBACK, port))  # without SO_REUSEADDR: fails beside any other socket
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        holder.close()
        return False
    holder.detach()  # open for as long as this process
    return True


def is_free(endpoint: Endpoint) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(family(endpoint), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(endpoint)
        except OSError:
            return False
        return True


def family(endpoint: Endpoint) -> socket.AddressFamily:
    """The family of a socket that listens there: IPv6 addresses alone have colons."""
    return socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET


def _first_ephemeral() -> int:
    with suppress(OSError, ValueError):
        if (first := int(_EPHEMERAL.read_text().split()[0])) > _LOWEST + _TRIES:
            return first
    return 32_768  # Linux's default
