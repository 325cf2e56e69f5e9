from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batcher import envoy_door
from shoal.batcher.envoy_door import Application
from shoal.errors import Overloaded
from support.until import until

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeBatcher:
    """Stands in for ``shoal.batcher.core.Batcher``; the integration tests hold the two to one contract."""

    def __init__(self) -> None:
        self.draining = False
        self.max_message_bytes = 65_536
        self.health = b"\x08\x01"
        self.calls: list[tuple[str, dict[str, str], bytes, float | None]] = []
        self.answer: bytes | Exception | asyncio.Future[bytes] = b"answer"
        self.called = asyncio.Event()
        self.dispatcher = type("Dispatcher", (), {"in_flight": 3})()

    async def call(self, method: str, headers: dict[str, str], message: bytes, timeout: float | None) -> bytes:
        self.calls.append((method, headers, message, timeout))
        self.called.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, bytes) else await self.answer

    def drain(self) -> None:
        self.draining = True


def application(batcher: FakeBatcher) -> Application:
    return Application(lambda: batcher, look_seconds=0.0)  # type: ignore[arg-type, return-value]


class Exchange:
    """One HTTP exchange with an ASGI application."""

    def __init__(
        self,
        batcher: FakeBatcher,
        path: str = "/s/M",
        body: bytes = b"",
        *,
        app: Application | None = None,
        complete: bool = True,
        **headers: str,
    ) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.fault: Exception | None = None
        self.hangs = False
        self._app = app or application(batcher)
        self._events = [{"type": "http.request", "body": body[:3], "more_body": True}]
        self._events.append({"type": "http.request", "body": body[3:], "more_body": not complete})
        named = {"content-type": "application/grpc", **{k.replace("_", "-"): v for k, v in headers.items()}}
        self._scope = {
            "type": "http",
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }

    async def receive(self) -> dict[str, Any]:
        if self._events:
            return self._events.pop(0)
        if self.fault is not None:
            raise self.fault
        if self.hangs:
            await asyncio.Event().wait()
        if self.gone.is_set():
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}  # as pyvoy does

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def run(self) -> Exchange:
        await self._app(self._scope, self.receive, self.send)
        self.gone.set()
        await asyncio.sleep(0)
        return self

    @property
    def status(self) -> tuple[str, str]:
        fields = dict([*self.sent[0]["headers"], *self.sent[-1].get("headers", [])])
        return fields[b"grpc-status"].decode(), fields.get(b"grpc-message", b"").decode()


def frame(message: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(message)) + message


async def test_a_message_goes_in_and_its_answer_comes_out() -> None:
    batcher = FakeBatcher()
    exchange = await Exchange(batcher, "/s/M", frame(b"question"), x_model_name="m", grpc_timeout="250m").run()
    assert exchange.status == ("0", "")
    assert exchange.sent[1]["body"] == frame(b"answer")
    ((method, headers, message, timeout),) = batcher.calls
    assert (method, headers["x-model-name"], message, timeout) == ("/s/M", "m", b"question", 0.25)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no complete"),
        (b"\0\0", "no complete"),
        (frame(b"x") + frame(b"y"), "exactly one"),
        (frame(b"x")[:-1], "exactly one"),
        (frame(bytes(70_000)), "larger than"),
    ],
)
async def test_a_malformed_body_is_an_invalid_argument(body: bytes, reason: str) -> None:
    code, text = (await Exchange(FakeBatcher(), body=body).run()).status
    assert code == "3"
    assert reason in text


@pytest.mark.parametrize("timeout", ["x", "5", "1.5S", "-1S", "5D", "²S", "٣S", "123456789S", "S", " 5S", "5S\n"])
async def test_a_malformed_timeout_is_an_invalid_argument(timeout: str) -> None:
    code, text = (await Exchange(FakeBatcher(), body=frame(b""), grpc_timeout=timeout).run()).status
    assert code == "3"
    assert "grpc-timeout" in text


async def test_an_error_is_a_response_of_trailers_only_with_its_text_escaped() -> None:
    batcher = FakeBatcher()
    batcher.answer = Overloaded("100% füll\n")
    exchange = await Exchange(batcher, body=frame(b"")).run()
    assert exchange.status == ("8", "100%25 f%C3%BCll%0A")
    assert exchange.sent[-1]["body"] == b""


async def test_an_overloaded_service_says_when_to_come_again() -> None:
    batcher = FakeBatcher()
    batcher.answer = Overloaded("later", retry_after_seconds=0.2501)
    exchange = await Exchange(batcher, body=frame(b"")).run()
    assert (b"grpc-retry-pushback-ms", b"251") in exchange.sent[0]["headers"]


async def test_an_unexpected_error_tells_nothing() -> None:
    batcher = FakeBatcher()
    batcher.answer = RuntimeError("secret")
    code, text = (await Exchange(batcher, body=frame(b"")).run()).status
    assert code == "13"
    assert "secret" not in text


async def test_a_caller_that_goes_away_cancels_its_call() -> None:
    batcher = FakeBatcher()
    batcher.answer = asyncio.get_running_loop().create_future()
    exchange = Exchange(batcher, body=frame(b""))
    running = asyncio.ensure_future(exchange.run())
    await batcher.called.wait()
    exchange.gone.set()
    await running
    assert batcher.answer.cancelled()
    assert exchange.sent == []


@pytest.mark.parametrize("fault", ["raises", "hangs"])
async def test_one_caller_that_can_not_be_asked_hides_no_other_that_leaves(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(envoy_door, "ASK_SECONDS", 0.01)
    batcher = FakeBatcher()
    batcher.answer = asyncio.get_running_loop().create_future()
    app = application(batcher)
    odd, leaves = Exchange(batcher, body=frame(b""), app=app), Exchange(batcher, body=frame(b""), app=app)
    calls = [asyncio.ensure_future(exchange.run()) for exchange in (odd, leaves)]
    await until(lambda: len(batcher.calls) == 2)
    odd.fault = ValueError("not now") if fault == "raises" else None
    odd.hangs = fault == "hangs"
    leaves.gone.set()
    await calls[1]
    assert leaves.sent == []
    assert not calls[0].done() or odd.sent == []
    await asyncio.wait(calls)
    assert [record.levelname for record in caplog.records] == ["ERROR" if fault == "raises" else "WARNING"]


async def test_a_message_that_never_ends_is_given_up_at_its_deadline() -> None:
    exchange = Exchange(FakeBatcher(), body=frame(b"xxxx"), complete=False, grpc_timeout="20m")
    exchange.hangs = True
    assert (await exchange.run()).status[0] == "4"


async def test_a_message_in_many_pieces_is_one() -> None:
    batcher = FakeBatcher()
    exchange = Exchange(batcher)
    message = frame(bytes(range(256)))
    exchange._events = [{"type": "http.request", "body": message[n : n + 1], "more_body": True} for n in range(261)]
    exchange._events.append({"type": "http.request", "body": b"", "more_body": False})
    assert (await exchange.run()).status == ("0", "")
    assert batcher.calls[0][2] == bytes(range(256))


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", None), ("snappy", None)],
)
async def test_a_message_may_be_compressed(encoding: str, compress: Callable[[bytes], bytes] | None) -> None:
    batcher = FakeBatcher()
    body = frame(compress(b"question"), compressed=1) if compress else frame(b"question")
    exchange = await Exchange(batcher, body=body, grpc_encoding=encoding).run()
    assert exchange.status == ("0", "")
    assert batcher.calls[0][2] == b"question"


async def test_a_compression_that_is_not_taken_is_unimplemented_and_says_which_are() -> None:
    exchange = await Exchange(FakeBatcher(), body=frame(b"x", compressed=1), grpc_encoding="snappy").run()
    assert exchange.status[0] == "12"
    assert (b"grpc-accept-encoding", b"identity,deflate,gzip") in exchange.sent[0]["headers"]


@pytest.mark.parametrize("headers", [{}, {"grpc_encoding": "identity"}])
async def test_a_message_flagged_as_compressed_without_an_encoding_is_internal(headers: dict[str, str]) -> None:
    code, text = (await Exchange(FakeBatcher(), body=frame(b"x", compressed=1), **headers).run()).status
    assert code == "13"
    assert "flagged as compressed" in text


async def test_health_needs_no_body() -> None:
    exchange = await Exchange(FakeBatcher(), "/grpc.health.v1.Health/Check", frame(b"")).run()
    assert exchange.sent[1]["body"] == frame(b"\x08\x01")


@pytest.mark.parametrize("path", ["/", "/metrics", envoy_door.DRAIN_PATH])
async def test_plain_http_finds_nothing(path: str) -> None:
    exchange = await Exchange(FakeBatcher(), path, content_type="text/plain").run()
    assert exchange.sent[0]["status"] == 404


async def test_the_parent_process_may_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(envoy_door.TOKEN_VARIABLE, "token")
    batcher = FakeBatcher()
    await Exchange(batcher, envoy_door.DRAIN_PATH, content_type="-", x_shoal_token="wrong").run()
    assert not batcher.draining
    exchange = await Exchange(batcher, envoy_door.DRAIN_PATH, content_type="-", x_shoal_token="token").run()
    assert batcher.draining
    assert exchange.sent[1]["body"] == b"3"
