from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shoal.errors import ConfigurationError
from shoal.explain import inquiry
from shoal.explain.endpoint import Beside, serve, serve_soon
from shoal.explain.inquiry import ask, every_address
from shoal.explain.views import Answer, Glance, Glances, Memory
from shoal.observe.metrics import WORKER
from shoal.observe.operators import OperatorServer, Work, refusal
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.ports import FreePorts
from support.visits import batcher_visit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

KNOWN = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
OTHER = "00000000-0000-4000-8000-000000000000"
MEMORY = Memory(requests=7, limit=10, seconds=1.5)


def remember(image_uuid: str) -> Answer:
    return Answer(memory=MEMORY, batcher=(batcher_visit(),) if image_uuid == KNOWN else ())


@pytest.fixture(scope="module")
def part() -> Iterator[Endpoint]:
    """A part's metrics address."""
    server = serve(Endpoint("127.0.0.1", 0), WORKER, remember)
    yield Endpoint("127.0.0.1", server.endpoint.port)
    server.close()


async def get(part: Endpoint, path: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, f"http://{part}{path}") as response:
        return response.status, await response.text()


async def test_a_request_stands_beside_the_metrics(part: Endpoint) -> None:
    status, text = await get(part, f"/requests/{KNOWN.upper()}")
    assert status == 200
    assert Answer.model_validate_json(text) == remember(KNOWN)
    status, text = await get(part, "/metrics")
    assert status == 200
    assert "# HELP" in text


async def test_an_unknown_one_is_404_and_says_how_far_back_the_memory_goes(part: Endpoint) -> None:
    status, text = await get(part, f"/requests/{OTHER}")
    assert status == 404
    assert Answer.model_validate_json(text).memory == MEMORY


@pytest.mark.parametrize("text", ["", "abc", KNOWN[:-1], f"{KNOWN}/", "..%2f..%2fetc%2fpasswd", "%ff%fe", "x" * 5000])
async def test_a_malformed_one_is_400(part: Endpoint, text: str) -> None:
    status, body = await get(part, f"/requests/{text}")
    assert status == 400
    assert "not a UUID" in body


async def test_what_a_part_tells_beside_is_asked_by_key() -> None:
    def glances(keys: AbstractSet[str]) -> Glances:
        return Glances(failed=tuple(Glance(model=key, key_id=key, seconds_ago=1, total_seconds=1) for key in keys))

    server = serve(Endpoint("127.0.0.1", 0), WORKER, remember, Beside(glances, lambda: MEMORY))
    try:
        part = Endpoint("127.0.0.1", server.endpoint.port)
        status, text = await get(part, "/recent?key=b&key=a&key=b&other=c")
        assert (status, {each.key_id for each in Glances.model_validate_json(text).failed}) == (200, {"a", "b"})
        assert Glances.model_validate_json((await get(part, "/recent"))[1]) == Glances()
        assert Memory.model_validate_json((await get(part, "/models"))[1]) == MEMORY
        assert "# HELP" in (await get(part, "/metrics"))[1]
    finally:
        server.close()


async def test_only_get(part: Endpoint) -> None:
    assert (await get(part, f"/requests/{KNOWN}", "POST"))[0] == 405


async def test_who_asks_before_all_is_imported_waits() -> None:
    listen = FreePorts()()
    serve_soon(listen, WORKER, remember)
    assert (await get(listen, f"/requests/{KNOWN}"))[0] == 200
    with pytest.raises(ConfigurationError, match=str(listen.port)):
        serve_soon(listen, WORKER, remember)


async def test_a_part_that_is_away_leaves_the_others_answers_alone(part: Endpoint) -> None:
    told = await ask(KNOWN, {"here": part, "away": Endpoint("127.0.0.1", 1)})
    assert told.answers == {"here": remember(KNOWN)}
    assert list(told.silent) == ["away"]
    assert (await ask(OTHER, {"here": part})).answers["here"].memory == MEMORY


async def test_a_part_that_hangs_is_given_up() -> None:
    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await ask(KNOWN, {"hangs": Endpoint("127.0.0.1", port)}, timeout_seconds=0.05)
        gone.set()
    assert told.silent == {"hangs": "no answer within 0.05 s"}


async def test_something_else_that_answers_is_named(part: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "PATH", "/metrics?")
    told = await ask(KNOWN, {"odd": part})
    assert "isn't the metrics address" in told.silent["odd"]


async def test_a_name_is_asked_at_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def known(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        hosts = {"workers": ["10.0.0.1", "10.0.0.2", "10.0.0.2", "fd00::1"], "localhost": ["127.0.0.1", "::1"]}
        return [(0, 0, 0, "", (found, port)) for found in hosts[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", known)
    hosts = [Endpoint(host, 9) for host in ("10.0.0.1", "10.0.0.2", "fd00::1")]
    assert await every_address(Endpoint("workers", 9)) == hosts
    assert await every_address(Endpoint("localhost", 9)) == [Endpoint("localhost", 9)]


async def test_a_part_that_is_asked_too_much_says_so() -> None:
    work = Work(lambda _: "", lambda _: refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy"))
    busy = OperatorServer(Endpoint("127.0.0.1", 0), {"/": work})
    told = await ask(KNOWN, {"busy": busy.endpoint})
    await asyncio.to_thread(busy.close)
    assert told.silent == {"busy": "busy with other questions; ask again"}
