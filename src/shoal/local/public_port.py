"""The port that ``shoal up`` is told to listen on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.ports import FreePorts, is_free

if TYPE_CHECKING:
    from shoal.service.spec import Service


def with_port(service: Service, port: int | None) -> Service:
    """``service`` with another public port; 0 takes any that is free, None keeps the service's own.

    Raises:
        ConfigurationError: something else listens there.
    """
    if port == 0:
        port = FreePorts()().port
    if port is not None:
        service = service.model_copy(update={"router": service.router.model_copy(update={"port": port})})
    listen = Endpoint(service.router.host, service.router.port)
    if not is_free(listen):
        raise ConfigurationError(
            f"can't listen on {listen}: another program does, or the address isn't this machine's; set router.host "
            "and router.port in the service file, or choose with 'shoal up --port N' (0: any free port)"
        )
    return service
