"""All queues of one batcher process: one a model and method, made when it is first called."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from shoal.batcher.batch_stream import opener
from shoal.batcher.common import Common
from shoal.batcher.held_bytes import MAX_HELD_BYTES, HeldBytes
from shoal.batcher.meter import Meters
from shoal.batcher.model_queue import ModelQueue
from shoal.batcher.quarantine import Quarantine
from shoal.batcher.request import Request
from shoal.errors import InvalidRequest, Overloaded, Unimplemented
from shoal.explain.recent import Recent
from shoal.runtime.priority import Priority
from shoal.service.identity import NOBODY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from shoal.errors import ShoalError
    from shoal.observe.tracing import Tracing
    from shoal.service.identity import CallerId

MAX_QUEUES = 1024
"""Bounds what callers can make a batcher keep who invent methods while no worker is there to refuse them."""
MAX_UNSERVED_OF_ONE = 128
"""Queues that one owner may have made and no worker has vouched for: so the other owners have room."""
_METHOD = re.compile(r"/[!-$&-.0-~]{1,200}/[!-$&-.0-~]{1,200}")
_MODEL = re.compile(r"[!-~]{1,256}")


class Dispatcher:
    """All queues of one batcher process."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        name: str,
        remembered: int = 0,
        max_held_bytes: int = MAX_HELD_BYTES,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepares; nothing is connected yet.

        Args:
            channel: To the load balancer.
            name: Names this process to workers.
            remembered: Requests kept in ``recent``, at most.
            max_held_bytes: Held at once, at most, by requests that wait or are at a worker.
            tracing: Begins spans. None: nothing is traced.
        """
        self.in_flight = 0
        """Unary calls and streams of calls."""
        self.recent: Recent[Request] = Recent(remembered)
        quarantine = Quarantine(self._wake_suspects)
        self._common = Common(name, opener(channel), self.recent, Meters(), quarantine, tracing)
        self._channel = channel
        self.held = HeldBytes(max_held_bytes)
        self._queues: dict[tuple[str, str], ModelQueue] = {}

    async def submit(
        self,
        method: str,
        model: str,
        owner: str,
        message: bytes,
        timeout_seconds: float,
        traceparent: str = "",
        caller: CallerId = NOBODY,
        priority: Priority = Priority.INTERACTIVE,
        *,
        affinity: str = "",
    ) -> bytes:
        """Answers one unary call of ``method``, batched with others of the same model and method.

        ``owner`` names, in any form, whose share of queues and memory it takes; calls of one ``affinity`` do best at
        the same worker. Raises the ShoalError of its status.
        Cancelling it withdraws the request; its batch-mates never notice.
        """
        queue = self.queue_of(method, model, owner)
        self.held.take(owner, len(message))
        self.in_flight += 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        now = monotonic()
        request = Request(
            owner=owner,
            arrived=now,
            deadline=now + timeout_seconds,
            priority=priority,
            message=message,
            reply=partial(_settle, answer),
            traceparent=traceparent,
            affinity=affinity,
            caller=caller,
            called=queue.called,
        )
        try:
            queue.enter((request,))
            return await answer
        finally:
            self.in_flight -= 1
            self.held.give_back(owner, len(message))
            if answer.cancelled():
                queue.leave((request,))

    def queue_of(self, method: str, model: str, owner: str) -> ModelQueue:
        """The queue of a model and method, made if need be for ``owner``.

        Raises:
            Unimplemented, InvalidRequest: there can be no such method or model.
            Overloaded: there are too many queues.
        """
        return self._queues.get((method, model)) or self._add(method, model, owner)

    def _add(self, method: str, model: str, owner: str) -> ModelQueue:
        if not _METHOD.fullmatch(method):  # it couldn't travel as metadata
            raise Unimplemented(f"no method {method[:100]!a}: expected /package.Service/Method")
        if not _MODEL.fullmatch(model):
            raise InvalidRequest(f"no model can have the name {model[:100]!a}")
        self._make_room(owner)
        queue = self._queues[method, model] = ModelQueue(self._common, (method, model), owner, self._remove)
        return queue

    def _make_room(self, owner: str) -> None:
        """Holds each caller, and all together, to their numbers of queues.

        Raises:
            Overloaded: there are too many.
        """
        unserved = [queue for queue in self._queues.values() if not queue.served]
        if sum(queue.founder == owner for queue in unserved) >= MAX_UNSERVED_OF_ONE:
            raise Overloaded(f"you call {MAX_UNSERVED_OF_ONE} methods and models that no worker serves: try later")
        if len(self._queues) < MAX_QUEUES:
            return
        idle = (queue for queue in (*unserved, *self._queues.values()) if not queue.callers)
        victim = next(idle, None) or _oldest_of_the_most(unserved)
        if victim is None or (victim.callers and victim.founder == owner):
            raise Overloaded(f"{MAX_QUEUES} methods are being called already; try again later")
        victim.end(Overloaded("no worker serves this, and others ask for what is served; try again later"))

    def _remove(self, queue: ModelQueue) -> None:
        if self._queues.get(queue.called) is queue:
            del self._queues[queue.called]

    def _wake_suspects(self) -> None:
        if waiting := [queue for queue in self._queues.values() if queue.suspects]:
            for queue in waiting:
                asyncio.get_running_loop().call_soon(queue.wake)

    def drain(self) -> None:
        """From now on batches close at once."""
        for queue in self._queues.values():
            queue.drain()

    async def close(self) -> None:
        """Ends all streams."""
        for queue in self._queues.values():
            queue.stop()
        await self._channel.close()
        if self._common.tracing is not None:
            await self._common.tracing.close()


def _settle(answer: asyncio.Future[bytes], _request: Request, response: bytes, error: ShoalError | None) -> None:
    if answer.done():  # cancelled, but not said so yet
        return
    if error is None:
        answer.set_result(response)
    else:
        answer.set_exception(error)


def _oldest_of_the_most(unserved: Sequence[ModelQueue]) -> ModelQueue | None:
    """The queue that was made first by the owner who made most of ``unserved``; None where there is none."""
    counts = Counter(queue.founder for queue in unserved)
    return next((queue for queue in unserved if queue.founder == counts.most_common(1)[0][0]), None)
