"""TCP ports of the processes that tests start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.runtime.ports import FreePorts

if TYPE_CHECKING:
    from shoal.runtime.endpoint import Endpoint

free = FreePorts()
"""A loopback endpoint that no other test is given, also of those that run beside it in processes of their own."""


def free_port() -> int:
    return free().port


async def until_refused(endpoint: Endpoint) -> None:
    """Returns as soon as nobody takes connections there."""
    while True:
        try:
            _, writer = await asyncio.open_connection(*endpoint)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it was taken as the listener closed
            continue
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.02)
