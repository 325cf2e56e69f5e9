"""A host and a port: what every part is told, in a module that costs nothing to import."""

from __future__ import annotations

from typing import NamedTuple

from shoal.errors import ConfigurationError


class Endpoint(NamedTuple):
    """A host name or address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Reads ``HOST:PORT``; an IPv6 address stands in brackets."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:  # the largest TCP port
            raise ConfigurationError(f"{text!r}: expected HOST:PORT, such as 127.0.0.1:9000 or [::1]:9000")
        return cls(host, int(port))
