from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shoal.client import AsyncClient, Retry
from shoal.client.caller import KeyCaller
from shoal.client.upload import Ticket, Tickets
from shoal.errors import Internal, InvalidRequest, NotFound
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from support.fake_service import FakeService


class Desk:
    """Hands out numbered tickets for 100 s."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[int] = []
        self.number = 0
        self.tickets = Tickets(self, KeyCaller("key"), Retry(clock=lambda: self.now))

    async def __call__(
        self, request: pb.CreateUploadsRequest, _timeout: float, metadata: tuple[tuple[str, str], ...]
    ) -> pb.CreateUploadsReply:
        assert dict(metadata) == {"x-api-key": "key"}
        self.asked.append(request.count)
        await asyncio.sleep(0)
        uploads = [pb.Upload(image_uuid=str(self.number + n), put_url="u") for n in range(request.count)]
        self.number += request.count
        return pb.CreateUploadsReply(uploads=uploads, expires_in_seconds=100, max_bytes=10)

    async def take(self) -> Ticket:
        return await self.tickets.take(self.now + 5)


async def test_tickets_are_asked_for_in_growing_numbers_and_each_is_used_once() -> None:
    desk = Desk()
    taken = await asyncio.gather(*(desk.take() for _ in range(200)))
    assert sorted(int(ticket.image_uuid) for ticket in taken) == list(range(200))
    assert desk.asked == [1, 2, 4, 8, 16, 32, 64, 64, 64]


async def test_old_tickets_are_thrown_away_and_the_next_question_is_small_again() -> None:
    desk = Desk()
    for _ in range(2):
        await desk.take()
    desk.now = 50.0  # half of their life
    assert (await desk.take()).expires == 100.0
    assert desk.asked == [1, 2, 1]


async def test_a_returned_ticket_is_used_next() -> None:
    desk = Desk()
    ticket = await desk.take()
    desk.tickets.give_back(ticket)
    assert await desk.take() is ticket


async def test_put_is_tried_again_on_server_errors(client: AsyncClient, service: FakeService) -> None:
    service.put_failures.extend([500, 503, 429])
    uuid = await client.upload(b"jpeg")
    assert service.calls["PUT"] == 4
    assert service.objects == {f"{uuid}.jpg": b"jpeg"}


async def test_a_refused_put_is_an_error_without_the_signature(client: AsyncClient, service: FakeService) -> None:
    service.put_failures.append(403)
    with pytest.raises(Internal, match="HTTP 403") as caught:
        await client.upload(b"jpeg")
    assert "sig" not in str(caught.value)
    assert service.calls["PUT"] == 1


async def test_a_store_that_is_away_is_tried_again(
    client: AsyncClient, service: FakeService, unused_tcp_port: int
) -> None:
    there = service.put_root
    service.put_root = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(Exception, match=r"object store|deadline") as caught:
        await client.upload(b"jpeg", timeout_seconds=0.2)
    assert "sig" not in str(caught.value)
    service.put_root = there
    await client.upload(b"jpeg")


async def test_a_picture_over_the_limit_never_leaves(client: AsyncClient, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "big.jpg").write_bytes(bytes(1001))
    for image in (bytes(1001), tmp_path / "big.jpg"):
        with pytest.raises(InvalidRequest, match="1,001 bytes"):
            await client.upload(image)
    assert service.calls["PUT"] == 0
    assert service.calls["Create"] == 1  # the unused ticket was kept


async def test_files_that_cannot_be_read(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.jpg: no such file"):
        await client.upload(tmp_path / "none.jpg")
    with pytest.raises(InvalidRequest, match="can't be read"):
        await client.upload(tmp_path)
    with pytest.raises(InvalidRequest, match="/dev/zero has"):
        await client.upload(Path("/dev/zero"))
