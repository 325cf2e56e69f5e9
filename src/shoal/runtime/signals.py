"""Running a server until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any, TypeVar

from shoal.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")
_FORCED = 1


def run_until_signal(main: Callable[[asyncio.Event], Awaitable[Result]], log_level: str = "info") -> Result:
    """Runs ``main``, whose event the first SIGTERM or SIGINT sets; it then drains and returns. A second forces exit."""
    logs.configure(log_level)

    async def run() -> Result:
        stop = asyncio.Event()

        def told() -> None:
            if stop.is_set():
                os._exit(_FORCED)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told)
        return await main(stop)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(run())


async def until_stop(stop: asyncio.Event, *works: asyncio.Future[Any]) -> None:
    """Returns as soon as ``stop`` is set or one of ``works`` is done, whatever came of it; none is cancelled here."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({stopping, *works}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes uvloop's event loop where that is installed, else Python's own."""
    try:
        import uvloop  # the router does without
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
