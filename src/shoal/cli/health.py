"""``shoal health``: whether a service, here or elsewhere, says that it serves."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from shoal.cli.calls import Ca, Target
from shoal.client.channel import Method, open_channel
from shoal.client.connection import Connection, find_connection
from shoal.errors import ShoalError, Unavailable
from shoal.service.home import Home

_PAUSE_SECONDS = 0.5


def health(
    *,
    target: Target = None,
    ca: Ca = None,
    service: Annotated[str, typer.Option(help="As gRPC's health protocol has it.", show_default="the whole")] = "",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until it has to serve.")] = 10.0,
) -> None:
    """Ask a service for its gRPC health, which takes no key. Exit code 1: it doesn't serve in time."""
    found = Connection(target, "", ca) if target else find_connection(None, None, Home.default(), ca)
    asyncio.run(until_serving(found, service, timeout))
    typer.echo(f"{found.target} serves")


async def until_serving(connection: Connection, service: str, timeout_seconds: float) -> None:
    """Returns once ``connection``'s target says SERVING; asked twice a second.

    Raises:
        Unavailable: it did not within ``timeout_seconds``; says what it answered last.
        ConfigurationError: target or authorities are wrong.
    """
    last = "no answer"
    async with open_channel(connection.target, connection.credentials()) as channel:
        check = Method(channel, "/grpc.health.v1.Health/Check", HealthCheckRequest, HealthCheckResponse)
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    last = await _status(check, service, timeout_seconds)
                    if last == "SERVING":
                        return
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            raise Unavailable(f"{connection.target} doesn't serve after {timeout_seconds:g} s: {last}") from None


async def _status(check: Method[HealthCheckRequest, HealthCheckResponse], service: str, timeout_seconds: float) -> str:
    """What it answers now, or why it doesn't."""
    try:
        answer = await check(HealthCheckRequest(service=service), timeout_seconds, ())
    except ShoalError as error:
        return str(error)
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))
