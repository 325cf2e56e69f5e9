from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from shoal.client.load.generator import LoadRequest
from shoal.client.load.replies import replies_of, replies_to
from shoal.errors import Code, Overloaded
from shoal.modelconfig.model import Task


class Client:
    """Refuses every third call; says how many were in flight at most."""

    def __init__(self) -> None:
        self.calls = self.in_flight = self.most = 0

    async def infer(self, task: Task, image: Any, model: str, *, timeout_seconds: float | None = None) -> Any:
        self.calls += 1
        number = self.calls
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        for _ in range(5):
            await asyncio.sleep(0)
        self.in_flight -= 1
        if number % 3 == 0:
            raise Overloaded("full")
        return SimpleNamespace(timing=number)


def request(model: str) -> LoadRequest:
    return LoadRequest(Task.CLASSIFICATION, "picture", model)


async def test_an_open_loop_sends_each_call_once_and_keeps_what_came_of_it() -> None:
    client = Client()
    replies = await replies_to(client, [(0.0, request("a")), (0.0, request("b")), (0.001, request("a"))], 1.0)
    assert sorted((reply.model, reply.intended) for reply in replies) == [("a", 0.0), ("a", 0.001), ("b", 0.0)]
    assert [reply.code for reply in replies].count(Code.RESOURCE_EXHAUSTED) == 1
    assert all((reply.timing is None) == (reply.code != Code.OK) for reply in replies)
    assert all(reply.latency >= reply.lag >= 0 for reply in replies)
    assert client.most >= 2  # nobody waited for an answer


async def test_a_closed_loop_has_so_many_calls_in_flight_and_ends() -> None:
    client = Client()
    replies = await replies_of(client, [request("a"), request("b")], 4, 0.02, 1.0)
    assert client.most == 4
    assert len(replies) == client.calls > 8
    assert {reply.model for reply in replies} == {"a", "b"}
