"""Ends what a key has open once the key is gone: the router looks at a key when a stream opens, and never again.

The load balancer's listener, which the batcher is connected to anyway, is asked for a digest of all keys; once that is
another one, each key that has something open is asked for (``shoal.router.key_answers``).

Several routers learn of a change one after the other, and any of them may answer. So a key must be denied twice in a
row. One that was never known to whoever answers may be new, and be known to another router: it gets the time that a
change may take to come to all. An older router, or none, says nothing, and then nothing ends.

What a caller with a token has open ends with the token.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TYPE_CHECKING, Final, NamedTuple

import grpc

from shoal.batching import wire
from shoal.runtime import logs
from shoal.service.identity import HEADER, Identity

if TYPE_CHECKING:
    from collections.abc import Callable

ASK_SECONDS: Final = 0.5
"""From one question to the next; and from the first denial of a key to the second."""
NEW_SECONDS: Final = 120.0
"""How long a key may be unknown that never was known: a Secret's copies come to all pods in a minute and a half."""
_DENIALS: Final = 2
_ANSWER_SECONDS: Final = 2.0
_ANSWERS: Final = {
    grpc.StatusCode.OK: True,
    grpc.StatusCode.UNAUTHENTICATED: False,
    grpc.StatusCode.PERMISSION_DENIED: False,
}
_LATE_SECONDS: Final = 60.0
"""How long after its end a token is still good: what Envoy allows for clocks that differ."""
_AT_ONCE: Final = 16
"""Questions in flight."""
_REMEMBERED: Final = 1_000
"""Keys that were known once."""

log = logs.Seldom(logging.getLogger(__name__))


class _Use(NamedTuple):
    """A model that a key is used for."""

    identity: str
    model: str

    def __repr__(self) -> str:
        return f"_Use({self.identity.partition('?')[0]!r}, {self.model!r})"


@dataclass(slots=True)
class _Followed:
    revoked: dict[object, Callable[[], None]] = field(default_factory=dict)
    asked: bool = False
    """The last question was answered with yes."""
    denials: int = 0
    """In a row."""
    denied_since: float = 0.0


class KeyWatch:
    """Follows the keys of what is open; asks nobody while nothing is."""

    def __init__(
        self, channel: grpc.aio.Channel, clock: Callable[[], float] = monotonic, wall_clock: Callable[[], float] = time
    ) -> None:
        """Starts with nothing to follow.

        Args:
            channel: To a load balancer.
            clock: Seconds, from any origin.
            wall_clock: Unix time.
        """
        self._wall_clock = wall_clock
        self._channel = channel
        self._clock = clock
        self._followed: dict[_Use, _Followed] = {}
        self._known: OrderedDict[_Use, None] = OrderedDict()
        self._version = ""
        self._task: asyncio.Task[None] | None = None

    def follow(self, identity: str, model: str, revoked: Callable[[], None]) -> Callable[[], None]:
        """Has ``revoked`` called, once, when the key is gone, changed, or may not call ``model`` any more.

        Args:
            identity: As the router wrote it. Anything else is followed by nobody: an older router wrote none, and whom
                a pipeline calls for is followed where the pipeline was called.
            model: What the key is used for.
            revoked: Called on the event loop.

        Returns:
            What ends the following; call it when the use is over.
        """
        caller = Identity.parse(identity)
        if caller is None or caller.pipeline:
            return _nothing
        ending = self._end_later(caller, revoked)
        use, token = _Use(identity, model), object()
        self._followed.setdefault(use, _Followed()).revoked[token] = revoked
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

        def release() -> None:
            if ending is not None:
                ending.cancel()
            found = self._followed.get(use)
            if found and found.revoked.pop(token, None) and not found.revoked:
                del self._followed[use]

        return release

    def _end_later(self, caller: Identity, revoked: Callable[[], None]) -> asyncio.TimerHandle | None:
        """A token ends by itself, and nobody need be asked."""
        if caller.expires is None:
            return None
        left = caller.expires + _LATE_SECONDS - self._wall_clock()
        return asyncio.get_running_loop().call_later(max(0.0, left), _tell, revoked)

    async def close(self) -> None:
        """Follows nothing any more."""
        self._followed.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._followed:
                try:
                    await self._look()
                except Exception as error:
                    log.say(type(error).__name__, "keys of open streams can't be asked for", error=error)
                await asyncio.sleep(ASK_SECONDS)
        finally:
            self._task = None

    async def _look(self) -> None:
        """Asks for the digest, and for keys where it is another one, or where the last answer settled nothing."""
        version = await self._ask_version()
        if version is None:
            return
        changed, self._version = version != self._version, version
        uses = [use for use, followed in self._followed.items() if changed or not followed.asked]
        for start in range(0, len(uses), _AT_ONCE):
            some = uses[start : start + _AT_ONCE]
            for use, known in zip(some, await asyncio.gather(*map(self._ask, some)), strict=True):
                self._answered(use, known=known)

    async def _ask_version(self) -> str | None:
        """None: nobody answers, or an older router does."""
        call = self._call(wire.KEYS_VERSION)
        if await call.code() is not grpc.StatusCode.OK:
            return None
        version = dict(await call.trailing_metadata()).get(wire.KEYS, "")
        return version if isinstance(version, str) else None

    async def _ask(self, use: _Use) -> bool | None:
        """None: nobody answers."""
        call = self._call(wire.KEYS_CHECK, (HEADER, use.identity), (wire.MODEL, use.model))
        return _ANSWERS.get(await call.code())

    def _call(self, method: str, *metadata: tuple[str, str]) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        """Its answer is a status and trailers, without a message."""
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        return ask(b"", metadata=metadata, timeout=_ANSWER_SECONDS)

    def _answered(self, use: _Use, *, known: bool | None) -> None:
        followed = self._followed.get(use)
        if followed is None:
            return
        followed.asked = known is True
        if known:
            followed.denials = 0
            self._remember(use)
        elif known is False and self._denied(use, followed):
            del self._followed[use]
            key_id = use.identity.partition("?")[0]
            log.say(use, "key %s is gone or changed, or may not call %s: what it has open ends", key_id, use.model)
            for revoked in followed.revoked.values():
                _tell(revoked)

    def _denied(self, use: _Use, followed: _Followed) -> bool:
        """Whether that is enough to end what the key has open."""
        now = self._clock()
        if not followed.denials:
            followed.denied_since = now
        followed.denials += 1
        if use in self._known:
            return followed.denials >= _DENIALS
        return now - followed.denied_since >= NEW_SECONDS

    def _remember(self, use: _Use) -> None:
        """Also when nothing of it is open any more: who comes back after that is no new key."""
        self._known[use] = None
        self._known.move_to_end(use)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _tell(revoked: Callable[[], None]) -> None:
    try:
        revoked()
    except Exception as error:  # the others are told all the same
        log.say(type(error).__name__, "what a key has open can't be ended", error=error)


def _nothing() -> None:
    """Releases nothing."""
