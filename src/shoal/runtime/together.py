"""Several things at once, of which an error is raised as it is, not in a group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.errors import ShoalError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


async def together(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Runs all of ``work``; the first error ends the rest and is raised.

    Of errors that come at once, one that nobody expected goes before a ShoalError.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        # Not except*: what is raised in there, Python 3.11's first releases wrap again.
        errors = failed.exceptions
        raise next((error for error in errors if not isinstance(error, ShoalError)), errors[0]) from None
