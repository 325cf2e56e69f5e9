"""A caller with a token (JWT, docs/routing.md) in the place of an API key: how it is sent, and renewed in time."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from shoal.errors import ConfigurationError, DeadlineExceeded, ShoalError, Unauthenticated
from shoal.runtime.logs import Seldom

if TYPE_CHECKING:
    from shoal.client.channel import Metadata

log = Seldom(logging.getLogger(__name__))

T = TypeVar("T")
Token: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""One, or what gives a fresh one: a function, which is called in a thread and so may wait, or a coroutine function."""

HEADER: Final = "authorization"
_RENEWED: Final = 0.8
"""Of the time that a token had left when it came; Kubernetes renews those of its service accounts then, too."""
_AGAIN_SECONDS: Final = 1.0
"""The function isn't called more often, whatever it gives."""


class TokenCaller:
    """Has a token.

    One that is given as text is sent until it ends. A function is asked before the first call, again while its token
    has a fifth of its time left, and once more when a call is refused, which is then tried again. No call waits for a
    token while there is a good one.

    Args:
        token: It, or what gives a fresh one.
        now: Unix time, in seconds.
    """

    api_key: Final = ""

    def __init__(self, token: Token, now: Callable[[], float] = time.time) -> None:
        """Raises ConfigurationError for what can be no token."""
        self._source = None if isinstance(token, str) else token
        self._now = now
        self._token = ""
        self._ends = self._renew_at = -math.inf
        self._ask_at = -math.inf
        self._renewal: asyncio.Task[ShoalError | None] | None = None
        if isinstance(token, str):
            self._take(token)

    def __repr__(self) -> str:
        return "token=…"

    @property
    def metadata(self) -> Metadata:
        """The token that was got last."""
        return ((HEADER, f"Bearer {self._token}"),)

    async def attempt(self, call: Callable[[float], Awaitable[T]], left_seconds: float) -> T:
        """Answers what ``call`` answers, given the seconds it has left.

        Raises:
            Unauthenticated: the service refuses the token, or there is none.
            DeadlineExceeded: no token came in time.
            ShoalError: what ``call`` raises, or the function that gives tokens.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + left_seconds
        if self._source is None:
            return await self._once(call, left_seconds)
        now = self._now()
        if now >= self._renew_at:
            self._begin()
        if not self._token or now >= self._ends:
            await self._renewed(deadline - clock())
        used = self._token
        try:
            return await call(deadline - clock())
        except Unauthenticated:
            if self._token == used:  # else another call had it renewed
                if not self._begin():
                    raise
                await self._renewed(deadline - clock())
        return await call(deadline - clock())

    async def close(self) -> None:
        """Waits for no token any more."""
        if self._renewal is not None:
            self._renewal.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewal

    async def _once(self, call: Callable[[float], Awaitable[T]], left_seconds: float) -> T:
        try:
            return await call(left_seconds)
        except Unauthenticated as error:
            way_out = "a token ends: give the client a function that returns a fresh one (token=…)"
            raise Unauthenticated(f"{error}; {way_out}") from None

    def _begin(self) -> bool:
        """Has the token renewed, unless it just was; whether that goes on now."""
        if self._renewal is None or self._renewal.done():
            if (now := self._now()) < self._ask_at:
                return False
            self._ask_at = now + _AGAIN_SECONDS
            self._renewal = asyncio.get_running_loop().create_task(self._renew())
        return True

    async def _renewed(self, left_seconds: float) -> None:
        """Waits for what goes on, if it does; raises why there is no token."""
        if self._renewal is None:
            return
        try:
            async with asyncio.timeout(left_seconds):
                failure = await asyncio.shield(self._renewal)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before a token came") from None
        if failure is not None:
            raise type(failure)(str(failure)) from failure.__cause__

    async def _renew(self) -> ShoalError | None:
        """Takes a new token; why there is none, if so. Whoever waits may leave: it goes on for the others."""
        assert self._source is not None
        try:
            if inspect.iscoroutinefunction(self._source):
                self._take(await self._source())
            else:
                self._take(await asyncio.to_thread(self._source))
        except ShoalError as error:
            failure = error
        except Exception as error:
            failure = Unauthenticated(f"there is no token: what should give one failed with {type(error).__name__}")
            failure.__cause__ = error
        else:
            return None
        log.say("token", "the token isn't renewed: %s", failure)
        return failure

    def _take(self, token: object) -> None:
        text = token.strip() if isinstance(token, str) else ""
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            shown = "another text" if isinstance(token, str) else type(token).__name__
            raise ConfigurationError(f"token: expected a JWT alone, such as eyJ….eyJ….…, not {shown}")
        now = self._now()
        self._token, self._ends = text, _end(text)
        self._renew_at = now + _RENEWED * (self._ends - now)


def _end(token: str) -> float:
    """In Unix time, unverified: the service alone decides. Infinity where the token tells none."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError, OverflowError):
        return math.inf
