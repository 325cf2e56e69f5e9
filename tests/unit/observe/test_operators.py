from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from shoal.observe import operators
from shoal.observe.operators import OperatorServer, Work, metrics_of, serve_metrics
from shoal.runtime.endpoint import Endpoint
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ANY = Endpoint("127.0.0.1", 0)


class Slow:
    """Answers when told to, with how often it was asked."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        self.at_once = 0

    def __call__(self, question: str) -> web.Response:
        self.asked.append(question)
        self.at_once += 1
        assert self.at_once == 1
        self.go.wait(60)
        self.at_once -= 1
        return web.Response(text=str(len(self.asked)))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    monkeypatch.setattr(operators, "REST", 0.0)
    made = Slow()
    yield made
    made.go.set()


def path(request: web.BaseRequest) -> str:
    return request.path


@contextlib.asynccontextmanager
async def serving(slow: Slow, **kept: list[OperatorServer]) -> AsyncIterator[Endpoint]:
    fast = Work(path, lambda _: web.Response(text="fast"))
    server = OperatorServer(ANY, {"/slow/": Work(path, slow), "/": fast})
    for servers in kept.values():
        servers.append(server)
    try:
        yield server.endpoint
    finally:
        slow.go.set()
        await asyncio.to_thread(server.close)


async def get(endpoint: Endpoint, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.request(method, f"http://{endpoint}{path}") as response,
    ):
        return response.status, await response.text()


async def connect(endpoint: Endpoint, text: bytes = b"GET / HTTP/1.1\r\nX: ") -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(text)
    reader.writer = writer  # type: ignore[attr-defined] - kept alive with it
    return reader


async def test_slow_connections_cost_no_thread_and_shut_out_nobody(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "MAX_CONNECTIONS", 4)
    servers: list[OperatorServer] = []
    async with serving(slow, into=servers) as endpoint:
        await get(endpoint, "/")
        threads = threading.active_count()
        silent = [await connect(endpoint) for _ in range(20)]
        assert await get(endpoint, "/") == (200, "fast")
        assert threading.active_count() == threads
        await until(lambda: len(servers[0]._http.connections) <= 4)
        for reader in silent:
            reader.writer.close()  # type: ignore[attr-defined]


async def test_who_has_asked_is_not_the_first_to_go(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "MAX_CONNECTIONS", 3)
    async with serving(slow) as endpoint:
        asks = asyncio.ensure_future(get(endpoint, "/slow/1"))
        await until(lambda: slow.asked)
        silent = [await connect(endpoint) for _ in range(10)]
        slow.go.set()
        assert await asks == (200, "1")
        for reader in silent:
            reader.writer.close()  # type: ignore[attr-defined]


async def test_who_stays_silent_goes(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "SILENT_SECONDS", 0.02)
    monkeypatch.setattr(operators, "SWEEP_SECONDS", 0.01)
    async with serving(slow) as endpoint:
        for text in (b"", b"GET /slow/", b"GET / HTTP/1.1\r\nX: "):
            reader = await connect(endpoint, text)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 60) == b""
            reader.writer.close()  # type: ignore[attr-defined]


async def test_who_asks_the_same_shares_an_answer_that_is_no_older_than_the_question(slow: Slow) -> None:
    async with serving(slow) as endpoint:
        first = asyncio.ensure_future(get(endpoint, "/slow/a"))
        await until(lambda: slow.asked)
        others = [asyncio.ensure_future(get(endpoint, "/slow/a")) for _ in range(8)]
        await asyncio.sleep(0.05)
        slow.go.set()
        assert await first == (200, "1")
        assert set(await asyncio.gather(*others)) <= {(200, "2"), (200, "3")}


async def test_different_questions_wait_up_to_a_bound_and_the_metrics_wait_for_none_of_them(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "MAX_WAITING", 3)
    async with serving(slow) as endpoint:
        asks = [asyncio.ensure_future(get(endpoint, "/slow/first"))]
        await until(lambda: slow.asked)
        asks += [asyncio.ensure_future(get(endpoint, f"/slow/{n}")) for n in range(5)]
        done, _ = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result()[0] for task in done} == {HTTPStatus.SERVICE_UNAVAILABLE}
        assert await get(endpoint, "/metrics") == (200, "fast")
        slow.go.set()
        statuses = [status for status, _ in await asyncio.gather(*asks)]
    assert sorted(statuses) == [200] * 4 + [503] * 2


async def test_only_get(slow: Slow) -> None:
    async with serving(slow) as endpoint:
        for method in ("POST", "HEAD", "PUT", "DELETE"):
            assert (await get(endpoint, "/slow/x", method))[0] == HTTPStatus.METHOD_NOT_ALLOWED
    assert slow.asked == []


@pytest.mark.parametrize("text", [b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000])
async def test_what_is_no_http_ends_its_connection_alone(slow: Slow, text: bytes) -> None:
    async with serving(slow) as endpoint:
        reader = await connect(endpoint, text)
        with contextlib.suppress(ConnectionError):
            assert b" 400 " in await asyncio.wait_for(reader.read(), 60)
        reader.writer.close()  # type: ignore[attr-defined]
        assert await get(endpoint, "/") == (200, "fast")


async def test_a_fault_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: str) -> web.Response:
        raise RuntimeError("secret")

    server = OperatorServer(ANY, {"/": Work(path, fail)})
    status, text = await get(server.endpoint, "/")
    await asyncio.to_thread(server.close)
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "secret" not in text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_metrics_come_in_the_form_and_compression_that_the_scraper_asks_for() -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(7)
    server = serve_metrics(ANY, registry)
    try:
        _, plain = await get(server.endpoint, "/metrics", Accept="text/plain")
        _, openmetrics = await get(
            server.endpoint, "/metrics", Accept="application/openmetrics-text; version=1.0.0; charset=utf-8"
        )
        async with (
            aiohttp.ClientSession(auto_decompress=False, headers={"accept-encoding": "gzip"}) as session,
            session.get(f"http://{server.endpoint}/metrics") as response,
        ):
            assert response.headers["content-encoding"] == "gzip"
            packed = await response.read()
    finally:
        await asyncio.to_thread(server.close)
    assert "things_total 7.0" in plain
    assert "_created" not in plain
    assert openmetrics.endswith("# EOF\n")
    assert gzip.decompress(packed).decode() == plain


def test_a_scraper_pays_for_one_rendering_of_what_it_asked_for() -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry)
    work = metrics_of(registry)
    request = type("Request", (), {"headers": {}})()
    assert b"things_total 0.0" in work.answer(work.read(request)).body


OPENMETRICS = "application/openmetrics-text"


async def test_who_asks_for_the_metrics_with_odd_words_shuts_no_scraper_out(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them ask one of a few questions."""
    monkeypatch.setattr(operators, "MAX_WAITING", 2)
    server = OperatorServer(ANY, {"/": Work(metrics_of(CollectorRegistry()).read, slow)})
    try:
        first = asyncio.ensure_future(get(server.endpoint, "/metrics"))
        await until(lambda: slow.asked)
        odd = [get(server.endpoint, f"/metrics{n}?{n}", Accept=f"odd/{n}") for n in range(6)]
        odd += [get(server.endpoint, "/metrics", Accept=f"{OPENMETRICS}; version=1.{n}.0") for n in range(6)]
        odd += [get(server.endpoint, "/metrics", Accept="text/plain; version=x", **{"Accept-Encoding": "br, x"})]
        asks = [asyncio.ensure_future(each) for each in odd]
        scraper = asyncio.ensure_future(get(server.endpoint, "/metrics"))
        done, _ = await asyncio.wait([*asks, scraper], timeout=0.3)
        assert not done, "nobody is turned away"
        slow.go.set()
        assert {status for status, _ in await asyncio.gather(first, scraper, *asks)} == {200}
    finally:
        slow.go.set()
        await asyncio.to_thread(server.close)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0;escaping=dots", "text/plain; version=1.0.0; charset=utf-8; escaping=dots"),
        (OPENMETRICS, f"{OPENMETRICS}; version=1.0.0; charset=utf-8"),
        (f"{OPENMETRICS};version=9.8;escaping=x", f"{OPENMETRICS}; version=1.0.0; charset=utf-8; escaping=underscores"),
        (f"{OPENMETRICS};version=x", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_each_form_is_told_by_its_content_type(accept: str, form: str) -> None:
    work = metrics_of(CollectorRegistry())
    request = type("Request", (), {"headers": {"accept": accept}})()
    assert work.read(request) == form
    answer = work.answer(form)
    assert answer.headers["content-type"] == form
    assert answer.body == (b"# EOF\n" if form.startswith(OPENMETRICS) else b"")
