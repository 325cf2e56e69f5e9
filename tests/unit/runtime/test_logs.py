from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shoal.runtime import logs
from shoal.runtime.logs import SELDOM_SECONDS, Seldom

if TYPE_CHECKING:
    import pytest


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.log = Seldom(logging.getLogger("shoal.test"), clock=lambda: self.now)


def test_a_reason_is_said_at_once_and_then_once_a_minute_with_how_often_it_was_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    for _ in range(5):
        world.log.say("broken", "stream %d broke", 7)
    world.log.say("other", "another reason")
    world.now = SELDOM_SECONDS
    world.log.say("broken", "stream %d broke", 8)
    world.now = 2 * SELDOM_SECONDS
    world.log.say("broken", "stream %d broke", 9)
    assert [record.getMessage() for record in caplog.records] == [
        "stream 7 broke",
        "another reason",
        "stream 8 broke (4 more like this since the last line)",
        "stream 9 broke",
    ]


def test_an_error_comes_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.log.say("fault", "it failed", error=ValueError("why"))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


def test_the_number_of_reasons_has_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    for n in range(2 * logs._MAX_REASONS):
        world.log.say(n, "reason")
    assert len(world.log._reasons) == logs._MAX_REASONS
