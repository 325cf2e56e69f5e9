"""Workers' addresses as one gRPC target."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.runtime.endpoint import Endpoint


def target_of(workers: Sequence[Endpoint]) -> str:
    """What gRPC connects to (https://grpc.github.io/grpc/core/md_doc_naming.html).

    Either any number of IP addresses of one kind, or one host name, which stands for all the addresses that it has in
    DNS.

    Raises:
        ConfigurationError: for a mixture, which gRPC has no word for.
    """
    kinds = {_version(worker.host) for worker in workers}
    if kinds == {0} and len(workers) == 1:
        return f"dns:///{workers[0]}"
    if len(kinds) != 1 or 0 in kinds:
        raise ConfigurationError(
            f"workers {', '.join(map(str, workers))}: several are given by IP addresses of one kind, "
            "or by one host name that has them all in DNS"
        )
    return f"ipv{kinds.pop()}:{','.join(map(str, workers))}"


def _version(host: str) -> int:
    """4 or 6; 0 for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0
