"""Calls of models on behalf of a pipeline's caller: over the load balancer's listener, on streams, to the batchers.

They go where the router would send the caller's own calls, by the same rules (a batcher group of its own or the shared
one, healthy hosts alone), and so the part needs to know one address, as a batcher does. They carry the caller's
identity as ``Identity.by_pipeline`` writes it, so they stand in the caller's place of each queue, need no key, and
count for no rate: the router has counted the picture, and has looked whether the caller may call the pipeline.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from shoal.batching import wire
from shoal.client.asked_regions import check_seen
from shoal.client.channel import Methods
from shoal.client.retry import Retry
from shoal.client.senders import Senders
from shoal.modelconfig.model import Task
from shoal.runtime import rpc
from shoal.runtime.priority import Priority
from shoal.service.identity import CLIENT_HEADER, HEADER

if TYPE_CHECKING:
    from shoal.client.channel import InferenceMethod, Metadata
    from shoal.pipeline.steps import Step
    from shoal.runtime.endpoint import Endpoint
    from shoal.v1 import inference_pb2 as pb

_KEEPALIVE_MS, _PATIENCE_MS = 10_000, 5_000


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf models are called."""

    owner: str
    key_id: str
    identity: str
    """As ``Identity.by_pipeline`` has it; not for a log."""
    priority: Priority = Priority.INTERACTIVE
    traceparent: str = ""

    def __repr__(self) -> str:
        return f"Caller({self.key_id!r})"


@dataclass(frozen=True, slots=True)
class _Identified:
    """What the router would send on of a caller."""

    identity: str = field(repr=False)
    key_id: str

    @property
    def metadata(self) -> Metadata:
        """As behind the router."""
        return (HEADER, self.identity), (CLIENT_HEADER, self.key_id)


class Calls(Protocol):
    """What asks a step's model."""

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> Any:
        """The reply: that of the step's task.

        Args:
            step: Whose model is asked.
            request: What.
            caller: For whom.
            deadline: Seconds of ``time.monotonic``.
            affinity: Of all calls for one picture, the same.

        Raises:
            ShoalError: what the service answered.
        """
        ...


class StreamCalls:
    """Implements ``Calls``. Belongs to the event loop on which it is made."""

    def __init__(self, balancer: Endpoint, retry: Retry | None = None) -> None:
        """``balancer``: the router's listener for batching streams."""
        rpc.keep_queue()
        self.channel = grpc.aio.insecure_channel(
            str(balancer),
            [
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", wire.MAX_RESULTS_BYTES),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _PATIENCE_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1_000),
            ],
        )
        methods = Methods(self.channel)
        self._methods: dict[Task, InferenceMethod[Any]] = {
            Task.CLASSIFICATION: methods.classify,
            Task.DETECTION: methods.detect,
            Task.SEGMENTATION: methods.segment,
        }
        self._retry = retry or Retry(clock=time.monotonic)
        self._senders = Senders(self._retry.clock, streams=True)

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> Any:  # the task's reply
        """One call; what is UNAVAILABLE is tried again, as a client does: also at a worker older than regions."""
        credentials = _Identified(caller.identity, caller.key_id)
        method, message = self._methods[step.task], request.SerializeToString()

        async def attempt(left: float) -> Any:
            sender = self._senders.of(credentials, method, step.model, caller.priority)
            answer = await sender(message, left, traceparent=caller.traceparent, affinity=affinity)
            reply = method.reply.FromString(answer)
            check_seen(request, reply)
            return reply

        return await self._retry.call(attempt, deadline)

    async def close(self) -> None:
        """Ends what is in flight."""
        await self._senders.close(0.0)
        await self.channel.close()
