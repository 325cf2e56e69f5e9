"""A worker of one's own: functions over whole batches, each for a unary gRPC method, served to batchers."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from shoal.batching import wire
from shoal.batching.function import Function, Reply, Request
from shoal.batching.host import DRAIN_SECONDS, Host
from shoal.batching.meter import BatchMeter
from shoal.batching.service import BatchingService
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import DEFAULT_MODEL, BatchingSettings
from shoal.observe.metrics import WORKER
from shoal.observe.operators import serve_metrics
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.signals import run_until_signal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from shoal.batching.function import BatchFunction

log = logging.getLogger(__name__)

CONNECTION_SECONDS = 60.0
"""A batcher that connects anew also asks DNS anew, and so finds workers that have joined under the same name."""
_METHOD = re.compile(r"/(?P<service>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)/(?P<name>[A-Za-z_]\w*)")
_ONE_OF_EACH = BatchingSettings()


class Server:
    """Serves any number of unary methods, each in batches and with settings of its own.

    Args:
        model: The name that callers may send as ``x-model-name``; it labels the metrics.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._model = model
        self._meter = BatchMeter(model)
        self._functions: dict[str, Function[Any, Any]] = {}

    def batched(
        self, method: str, request: type[Request], reply: type[Reply], settings: BatchingSettings = _ONE_OF_EACH
    ) -> Callable[[BatchFunction[Request, Reply]], BatchFunction[Request, Reply]]:
        """Registers the decorated function, which answers one reply or one exception for each request, in their order.

        A coroutine function runs on the event loop, any other in a thread; ``settings.instance_count`` at once.

        Args:
            method: Its full name, such as ``/nearest.v1.Search/Nearest``.
            request: A protobuf class, or ``bytes`` for the message as it came.
            reply: The same for what it answers.
            settings: How large batches grow and how long they wait.

        Raises:
            ConfigurationError: the method, its messages or the settings can't be right.
        """
        settings.check()
        path = "/" + method.removeprefix("/")
        _check(path, request, reply)
        if path in self._functions:
            raise ConfigurationError(f"{path} has a function already")

        def register(function: BatchFunction[Request, Reply]) -> BatchFunction[Request, Reply]:
            self._functions[path] = Function(path, request, reply, function, settings, self._meter)
            return function

        return register

    @property
    def busy(self) -> bool:
        """Whether a function runs now."""
        return any(function.instances.busy for function in self._functions.values())

    @asynccontextmanager
    async def serving(self, listen: str) -> AsyncIterator[Endpoint]:
        """Serves for as long as the block lasts, then drains; once a server. The endpoint tells the port of ``HOST:0``.

        Raises:
            ConfigurationError: there is no function, or the port can't be had.
        """
        if not self._functions:
            raise ConfigurationError("the server has no function; register one with @server.batched(…)")
        batching = BatchingService()
        await batching.put(self._model, *self._functions.values())
        services = sorted({path.split("/")[1] for path in self._functions})
        host = Host(batching, services, connection_seconds=CONNECTION_SECONDS)
        endpoint = await host.start(Endpoint.parse(listen))
        await host.health.say(serving=True)
        log.info("serves %s on %s", ", ".join(self._functions), endpoint)
        try:
            yield endpoint
        finally:
            await host.drain()
            for function in self._functions.values():
                function.instances.close()


def run(server: Server, listen: str, metrics: str | None = None, *, log_level: str = "info") -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns; a second signal forces the end.

    What it can't start with, such as a port in use, is a line on standard error and exit code 2.

    Args:
        server: What to serve.
        listen: ``HOST:PORT``, where batchers connect.
        metrics: ``HOST:PORT`` for Prometheus' ``/metrics``; none without it.
        log_level: Of Shoal's own lines: debug, info, warning or error.
    """

    async def main(stop: asyncio.Event) -> None:
        if metrics is not None:
            serve_metrics(Endpoint.parse(metrics), WORKER)
        async with server.serving(listen):
            await stop.wait()
        if server.busy:
            log.error("a function still ran %.0f s after the signal; it is left", DRAIN_SECONDS)
            os._exit(1)  # an orderly exit would wait for it

    try:
        run_until_signal(main, log_level)
    except ConfigurationError as error:
        log.error("%s", error)  # noqa: TRY400 - the message is the whole story
        sys.exit(2)


def _check(path: str, request: type[Request], reply: type[Reply]) -> None:
    """Finds typing errors where the protocol is known: the service's own description says what its methods take."""
    found = _METHOD.fullmatch(path)
    if found is None:
        raise ConfigurationError(f"method {path!r}: expected /package.Service/Method")
    if found["name"].endswith(wire.STREAM):
        raise ConfigurationError(
            f"method {path}: a batcher takes a name that ends in {wire.STREAM} for the stream of "
            f"{path.removesuffix(wire.STREAM)}; give it another one"
        )
    if not issubclass(request, Message):
        return
    try:
        service = request.DESCRIPTOR.file.pool.FindServiceByName(found["service"])
    except KeyError:
        return
    method = service.methods_by_name.get(found["name"])
    if method is None:
        raise ConfigurationError(f"method {path}: {service.full_name} has {', '.join(service.methods_by_name)}")
    if method.client_streaming or method.server_streaming:
        raise ConfigurationError(f"method {path} is streaming; only unary ones are batched")
    for kind, expected in ((request, method.input_type), (reply, method.output_type)):
        if issubclass(kind, Message) and kind.DESCRIPTOR is not expected:
            raise ConfigurationError(
                f"method {path}: its protocol has {expected.full_name}, not {kind.DESCRIPTOR.full_name}"
            )
