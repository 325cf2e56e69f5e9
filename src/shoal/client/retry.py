"""Trying UNAVAILABLE again, and nothing else, for as long as the caller's deadline allows."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from shoal.errors import DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter: the n-th pause is uniform in [0, min(maximum, initial * 2^n)].

    Full jitter spreads the clients of a service that comes back; see
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    initial_seconds: float = 0.05
    maximum_seconds: float = 1.0
    clock: Callable[[], float] = time.monotonic
    """Seconds, from any origin; never goes back."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform

    async def call(self, attempt: Callable[[float], Awaitable[T]], deadline: float) -> T:
        """Answers what ``attempt`` answers, given the seconds it has left.

        Raises:
            DeadlineExceeded: ``deadline`` (on ``clock``) passed before the first attempt, or during a later one; then
                it names what the one before failed of.
            Unavailable: the last attempt's, if the next one could only start after the deadline.
            ShoalError: any other error of an attempt, at once.
        """
        ceiling = self.initial_seconds
        failure: Unavailable | None = None
        try:
            while (left := deadline - self.clock()) > 0:
                try:
                    return await attempt(left)
                except Unavailable as error:
                    failure = error
                except DeadlineExceeded as error:
                    raise DeadlineExceeded(f"{error}{told(failure)}") from None
                pause = self.uniform(0.0, ceiling)
                if self.clock() + pause >= deadline:
                    break
                await self.sleep(pause)
                ceiling = min(ceiling * 2, self.maximum_seconds)
        except asyncio.CancelledError as cancelled:
            cancelled.__cause__ = failure  # for whoever set a time limit: ``told`` makes a text of it
            raise
        raise failure or DeadlineExceeded("the deadline passed before the call was sent")


def told(failure: BaseException | None) -> str:
    """What a deadline's error says besides: alone it tells nothing of why there were several attempts."""
    return f"; the attempt before it failed: {failure}" if isinstance(failure, Unavailable) else ""
