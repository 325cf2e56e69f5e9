from __future__ import annotations

import pytest

from shoal.engine.triton import server_executions
from shoal.engine.triton.server_executions import ServerExecutions


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only entry."""
    now = [100.0]
    monkeypatch.setattr(server_executions, "monotonic", lambda: now[0])
    return now


def test_batches_begin_in_order_as_instances_get_free(clock: list[float]) -> None:
    server = ServerExecutions(2)
    first, second, third, fourth = (server.begin() for _ in range(4))
    clock[0] += 3
    assert server.end(second) == 3
    clock[0] += 2
    assert server.end(first) == 5
    assert server.end(third) == 2
    clock[0] += 1
    assert server.end(fourth) == 1
    later = server.begin()
    clock[0] += 4
    assert server.end(later) == 4


def test_one_that_fails_while_it_waits_leaves_the_queue(clock: list[float]) -> None:
    server = ServerExecutions(1)
    first, second, third = (server.begin() for _ in range(3))
    assert server.end(second) == 0
    clock[0] += 1
    assert server.end(first) == 1
    clock[0] += 2
    assert server.end(third) == 2
