"""Waiting for what tells nobody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Returns as soon as ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # nothing there to wait for
            await asyncio.sleep(0.005)
