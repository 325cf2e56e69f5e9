"""The batcher's core, whichever door a call comes through: headers in, opaque messages to the dispatcher."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Self

from shoal.batcher.affinities import affinity_of
from shoal.batcher.callers import Callers, traceparent_of
from shoal.batcher.compression import ACCEPTED, UnknownEncoding
from shoal.batcher.held_bytes import MAX_HELD_BYTES
from shoal.batcher.limits import DEFAULT_TIMEOUT_SECONDS, Limits, too_large
from shoal.batching import wire
from shoal.errors import Code, InvalidRequest, NotFound, ShoalError, Unauthenticated, Unavailable, to_status
from shoal.service.identity import JWT_CALLER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import grpc

    from shoal.batcher.call_stream import CallStream
    from shoal.batcher.callers import Caller
    from shoal.batcher.dispatch import Dispatcher
    from shoal.batcher.door import Door
    from shoal.batcher.key_watch import KeyWatch

    Headers = Mapping[str, str]

log = logging.getLogger(__name__)

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
VARIABLE = "SHOAL_BATCHER"
_HELD_MESSAGES = 512
"""A batcher holds so many messages of the largest size, where that is more than ``MAX_HELD_BYTES``."""

_WORKERS = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": wire.SERVICE},
}
"""Streams go to each healthy worker in turn; one that says it is draining is left at once
(https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md)."""
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # grpc.health.v1.HealthCheckResponse


@dataclass(frozen=True, slots=True)
class Orders:
    """What a batcher is told. It travels through the environment: inside Envoy there is no other way."""

    name: str
    """Names this process to workers and in logs."""
    target: str
    """What gRPC connects to (https://grpc.github.io/grpc/core/md_doc_naming.html)."""
    workers: bool = False
    """The target's addresses are workers, to share the load; else it is a load balancer."""
    models: tuple[str, ...] = ()
    """The names that callers may send, of which the first stands for none. Empty: any, but one must be sent."""
    max_message_bytes: int = wire.REQUEST_BYTES
    metrics: str = ""
    """``HOST:PORT``; none if empty."""
    recent_requests: int = 0
    """Kept for ``shoal explain``."""
    otlp_endpoint: str = ""
    """Where spans go; nowhere if empty."""
    log_level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""

    def write(self) -> dict[str, str]:
        """The environment for ``read``."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """What ``write`` wrote."""
        told = json.loads(environment[VARIABLE])
        return cls(**told | {"models": tuple(told["models"])})


class Batcher:
    """What both doors share."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        models: Sequence[str] = (),
        max_message_bytes: int = wire.REQUEST_BYTES,
        keys: KeyWatch | None = None,
    ) -> None:
        """Prepares.

        Args:
            dispatcher: Where calls go.
            models: The names that callers may send, of which the first stands for none. Empty: any.
            max_message_bytes: Of a request.
            keys: Tells when a key is gone. None: there is no router, and so are no keys.
        """
        self.dispatcher = dispatcher
        self.draining = False
        self.max_message_bytes = max_message_bytes
        self._models = frozenset(models)
        self._default_model = models[0] if models else ""
        self._keys = keys
        self._callers = Callers()
        self._streams: set[CallStream] = set()

    async def call(self, method: str, headers: Headers, message: bytes, timeout_seconds: float | None) -> bytes:
        """Answers one unary call, or raises the ShoalError of its status."""
        caller = self._callers.of(headers)
        model = self._model_of(headers, caller)
        if len(message) > self.max_message_bytes:
            raise too_large(self.max_message_bytes)
        if caller.bucket is not None:  # the router has let it through
            caller.bucket.spend(monotonic())
        return await self.dispatcher.submit(
            method,
            model,
            caller.owner,
            message,
            DEFAULT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
            traceparent_of(headers.get("traceparent", "")),
            caller.id,
            caller.priority,
            affinity=affinity_of(headers.get(wire.AFFINITY, "")),
        )

    async def stream(self, method: str, headers: Headers, door: Door) -> None:
        """Answers the calls of one stream; ``method`` is the stream's own path.

        Raises:
            GoneError: the caller has left.
            ShoalError: of the stream as a whole; each call has its own status.
        """
        from shoal.batcher.call_stream import CallStream  # what starts Envoy has no use for protobuf

        caller = self._callers.of(headers)
        model = self._model_of(headers, caller)
        limits = Limits.of(headers, self.max_message_bytes)
        stream = CallStream(self.dispatcher, (method.removesuffix(wire.STREAM), model), caller, limits)
        release = (
            self._keys.follow(caller.id.identity, model, partial(stream.fail, _revoked(caller))) if self._keys else None
        )
        self._streams.add(stream)
        try:
            await stream.serve(door)
        finally:
            self._streams.discard(stream)
            if release is not None:
                release()

    def _model_of(self, headers: Headers, caller: Caller) -> str:
        if self.draining and not caller.by_pipeline:  # what is in flight may wait for that
            raise Unavailable("the batcher is draining; try again")
        model = headers.get(wire.MODEL) or self._default_model
        if not model:
            raise InvalidRequest(f"the {wire.MODEL} metadata is missing")
        if self._models and model not in self._models:
            raise NotFound(f"no model {model[:100]!r} is served here")
        return model

    @property
    def health(self) -> bytes:
        """A serialized grpc.health.v1.HealthCheckResponse."""
        return _NOT_SERVING if self.draining else _SERVING

    def drain(self) -> None:
        """Health fails from now on, new calls are refused, and no batch waits for company."""
        self.draining = True
        self.dispatcher.drain()
        for stream in self._streams:
            stream.drain()

    async def close(self) -> None:
        """Ends all that goes on."""
        if self._keys is not None:
            await self._keys.close()
        await self.dispatcher.close()


def _revoked(caller: Caller) -> Unauthenticated:
    if caller.id.key_id.startswith(JWT_CALLER):
        return Unauthenticated("the token has ended, or its issuer is none here any more; a new one may open a stream")
    return Unauthenticated("the API key was revoked or changed; a stream under the key as it is now may be opened")


def make_batcher() -> Batcher:
    """The batcher that the environment describes, its metrics served; call it on the event loop that will serve."""
    from shoal.batcher.dispatch import Dispatcher  # what starts Envoy, and no batcher, pays for none of these
    from shoal.batcher.glances import glances
    from shoal.batcher.key_watch import KeyWatch
    from shoal.batcher.request import explain
    from shoal.explain.endpoint import Beside, serve_soon
    from shoal.observe.metrics import BATCHER
    from shoal.observe.tracing import Tracing
    from shoal.runtime.endpoint import Endpoint

    orders = Orders.read(os.environ)
    channel = open_channel(orders.target, workers=orders.workers)
    held = max(MAX_HELD_BYTES, _HELD_MESSAGES * orders.max_message_bytes)
    tracing = Tracing.to(orders.otlp_endpoint, "batcher", orders.name) if orders.otlp_endpoint else None
    dispatcher = Dispatcher(channel, orders.name, orders.recent_requests, held, tracing)
    if orders.metrics:
        beside = Beside(glances=partial(glances, dispatcher.recent))
        serve_soon(Endpoint.parse(orders.metrics), BATCHER, partial(explain, dispatcher.recent), beside)
    keys = None if orders.workers else KeyWatch(channel)
    return Batcher(dispatcher, orders.models, orders.max_message_bytes, keys)


def open_channel(target: str, *, workers: bool = False) -> grpc.aio.Channel:
    """The channel to the load balancer, or to all ``workers`` of ``target``, for streams that may idle for long."""
    import grpc  # as above

    from shoal.runtime import rpc

    rpc.keep_queue()
    return grpc.aio.insecure_channel(
        target,
        options=[
            *((("grpc.service_config", json.dumps(_WORKERS)),) if workers else ()),
            ("grpc.max_receive_message_length", wire.MAX_RESULTS_BYTES),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
    )


def status_of(error: Exception) -> tuple[Code, str]:
    """The status of any error; one that nobody expected goes to the log."""
    if not isinstance(error, ShoalError):
        log.error("a call failed", exc_info=error)
    return to_status(error)


def hints_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """What a caller is told besides the status, as trailers."""
    if isinstance(error, UnknownEncoding):
        return (("grpc-accept-encoding", ACCEPTED),)
    from shoal.runtime import rpc  # as above

    return rpc.hints_of(error)
