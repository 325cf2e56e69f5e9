"""A client's senders, each made when its first call comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from shoal.batching import wire
from shoal.client.calls import Deadlines
from shoal.client.sender import Sender
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.client.channel import InferenceMethod, Metadata
    from shoal.client.stream_limits import StreamLimits

_KEPT = 64
"""Beyond this number, those go that have nothing to do: whoever names models that there are not fills no memory."""


class Credentials(Protocol):
    """Of a caller, by which it is told from others: equal ones are one caller's."""

    @property
    def metadata(self) -> Metadata:
        """Goes with each call and stream, as it is when that begins."""
        ...


class Senders:
    """One for each caller, method, model and priority. Belongs to the event loop on which it is made.

    Args:
        clock: Seconds, from any origin; never goes back.
        streams: See ``Sender``.
        limits: See ``Sender``.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        streams: bool | None = None,
        limits: StreamLimits | None = None,
    ) -> None:
        self._clock = clock
        self._streams = streams
        self._limits = limits
        self._deadlines = Deadlines(clock)
        self._made: dict[tuple[Credentials, str, str, Priority], Sender] = {}
        self._sent: Counter[str] = Counter()
        """By senders that are gone."""

    def of(self, credentials: Credentials, method: InferenceMethod[Any], model: str, priority: Priority) -> Sender:
        """The one for such calls, to be used at once: one without calls may be let go.

        Args:
            credentials: The caller's.
            method: What is called.
            model: The model's name.
            priority: Of each call.
        """
        key = (credentials, method.name, model, priority)
        sender = self._made.get(key)
        if sender is None:
            if len(self._made) >= _KEPT:
                self._let_go()
            sender = self._made[key] = Sender(
                method,
                partial(_metadata, credentials, model, priority),
                self._deadlines,
                self._clock,
                streams=self._streams,
                limits=self._limits,
            )
        return sender

    @property
    def sent(self) -> Counter[str]:
        """Attempts so far: ``alone``, as unary calls, and ``by_stream``."""
        counted = Counter(self._sent)
        for sender in list(self._made.values()):  # another thread may ask
            counted.update(alone=sender.sent_alone, by_stream=sender.sent_by_stream)
        return counted

    def _let_go(self) -> None:
        sent = self.sent
        self._made = {name: one for name, one in self._made.items() if one.busy}
        self._sent += sent - self.sent

    async def close(self, grace_seconds: float) -> None:
        """Ends what waits with ``Cancelled``, and all streams within ``grace_seconds``."""
        await asyncio.gather(*(sender.close(grace_seconds) for sender in self._made.values()))
        self._deadlines.close()


def _metadata(credentials: Credentials, model: str, priority: Priority) -> Metadata:
    told: Metadata = ((wire.MODEL, model), *credentials.metadata)
    return (*told, (wire.PRIORITY, priority.value)) if priority is not Priority.INTERACTIVE else told
