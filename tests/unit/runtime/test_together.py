from __future__ import annotations

import asyncio

import pytest

from shoal.errors import Internal, Unavailable
from shoal.runtime.together import together


async def fail(error: Exception) -> None:
    raise error


async def test_an_error_comes_without_a_group_and_ends_the_rest() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        await together([wait(), fail_later()])
    assert ended == [True]


async def test_what_nobody_expected_goes_before_what_is_told_to_users() -> None:
    with pytest.raises(ZeroDivisionError):
        await together([fail(Internal("one")), fail(ZeroDivisionError()), fail(Internal("another"))])
