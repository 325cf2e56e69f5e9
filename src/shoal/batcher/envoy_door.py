"""The batcher's fast door: an ASGI application that runs inside Envoy (pyvoy).

HTTP/2 is Envoy's, in C++; gRPC's framing is the few lines below, over opaque bytes
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import struct
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shoal.batcher.compression import decompress
from shoal.batcher.core import HEALTH_CHECK, Orders, hints_of, make_batcher, status_of
from shoal.batcher.door import GoneError
from shoal.batcher.limits import DEFAULT_TIMEOUT_SECONDS, too_large
from shoal.batching import wire
from shoal.errors import Code, DeadlineExceeded, InvalidRequest
from shoal.runtime import logs
from shoal.service.identity import CLIENT_HEADER
from shoal.service.identity import HEADER as IDENTITY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping

    from shoal.batcher.core import Batcher, Headers

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logs.Seldom(logging.getLogger(__name__))

DRAIN_PATH = "/-/drain"
IN_FLIGHT_PATH = "/-/in-flight"
TOKEN_HEADER = "x-shoal-token"  # noqa: S105 - the name of a header
TOKEN_VARIABLE = "SHOAL_BATCHER_TOKEN"  # noqa: S105 - the name of a variable
"""Known to the parent process only: who may drain."""

LOOK_SECONDS = 1.0
"""How long a caller may be gone unnoticed; its deadline counts all the same."""
ASK_SECONDS = 1.0
"""Asking one caller takes no time, or something is wrong with it."""
MAX_LOOKS = 1000
"""Callers asked in one look, oldest first: bounds what it costs (about 0.1 ms each)."""

_WANTED = frozenset(
    name.encode()
    for name in (
        *("content-type", "grpc-encoding", "grpc-timeout", "traceparent", CLIENT_HEADER, wire.MODEL),
        *(IDENTITY, TOKEN_HEADER, wire.PRIORITY, wire.TIMEOUTS),
    )
)  # decoding all of them would cost more than the policy
_PREFIX = struct.Struct(">BI")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Application:
    """The ASGI application. ``make`` runs on its event loop at start-up, so nothing happens at import."""

    def __init__(self, make: Callable[[], Batcher], look_seconds: float = LOOK_SECONDS) -> None:
        self._make = make
        self._batcher: Batcher | None = None
        self._look_seconds = look_seconds
        self._callers: dict[asyncio.Task[Any], tuple[float, Receive]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one connection's lifespan or one call."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._batcher = self._make()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._batcher.close()
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def batcher(self) -> Batcher:
        """Made at the first use where the host doesn't speak lifespan."""
        if self._batcher is None:
            self._batcher = self._make()
        return self._batcher

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in _WANTED
        }
        path = scope["path"]
        if not headers.get("content-type", "").startswith("application/grpc"):
            await _plain(send, *self._operate(path, headers))
        elif path == HEALTH_CHECK:
            await _grpc_ok(send, self.batcher.health)
        elif path.endswith(wire.STREAM):
            await self._stream(path, headers, _StreamDoor(receive, send, headers, self.batcher.max_message_bytes))
        else:
            await self._unary(path, headers, receive, send)

    async def _unary(self, path: str, headers: Headers, receive: Receive, send: Send) -> None:
        try:
            timeout, limit = _timeout(headers), self.batcher.max_message_bytes
            body = await _read_body(receive, limit, DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)
            message = _unframe(body, headers.get("grpc-encoding", ""), limit)
            answer = await self._watched(self.batcher.call(path, headers, message, timeout), receive)
        except asyncio.CancelledError:  # the caller has gone: there is nobody to answer
            return
        except Exception as error:
            await _grpc_error(send, *status_of(error), hints_of(error))
        else:
            await _grpc_ok(send, answer)

    async def _stream(self, path: str, headers: Headers, door: _StreamDoor) -> None:
        work = asyncio.get_running_loop().create_task(self.batcher.stream(path, headers, door))
        door.half_closed = partial(self._watch, work, door.receive)
        try:
            await work
        except (GoneError, asyncio.CancelledError):
            return
        except Exception as error:
            await door.end(*status_of(error), hints_of(error))
        else:
            await door.end(Code.OK, "", ())
        finally:
            self._callers.pop(work, None)

    async def _watched(self, work: Coroutine[Any, Any, bytes], receive: Receive) -> bytes:
        """Awaits ``work``, which is cancelled if its caller goes away."""
        call = asyncio.get_running_loop().create_task(work)
        self._watch(call, receive)
        try:
            return await call
        finally:
            del self._callers[call]

    def _watch(self, call: asyncio.Task[Any], receive: Receive) -> None:
        """Cancels ``call``, whose whole request is here, if its caller goes away."""
        loop = asyncio.get_running_loop()
        self._callers[call] = loop.time(), receive
        if self._looking is None:
            self._looking = loop.create_task(self._look_after_callers())

    async def _look_after_callers(self) -> None:
        """Cancels the calls of callers that have left, looking once a while at those that have waited long.

        pyvoy answers each receive() behind the body at once, with nothing in it, so a call can't wait for its
        disconnect; asking for each one, always, would cost more than the call itself.
        """
        loop = asyncio.get_running_loop()
        try:
            while self._callers:
                await asyncio.sleep(self._look_seconds)
                for call, (since, receive) in islice(list(self._callers.items()), MAX_LOOKS):
                    long = call in self._callers and loop.time() - since >= self._look_seconds
                    if long and await self._has_left(receive):
                        call.cancel()
        finally:
            self._looking = None

    async def _has_left(self, receive: Receive) -> bool:
        """Whether the caller is gone. One that can't be asked counts as there: its deadline ends its call, too."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return bool((await receive())["type"] == "http.disconnect")
        except TimeoutError:
            log.say("slow", "a caller couldn't be asked within %g s whether it is still there", ASK_SECONDS)
        except Exception as error:
            log.say(type(error).__name__, "a caller couldn't be asked whether it is still there", error=error)
        return False

    def _operate(self, path: str, headers: Headers) -> tuple[int, bytes]:
        """What the parent process asks: the calls in flight, after a drain has begun or without."""
        if path not in {DRAIN_PATH, IN_FLIGHT_PATH} or not _is_parent(headers):
            return 404, b"not found; this is a gRPC service\n"
        if path == DRAIN_PATH:
            self.batcher.drain()
        return 200, str(self.batcher.dispatcher.in_flight).encode()


def _make() -> Batcher:
    logs.configure(Orders.read(os.environ).log_level)  # the Python inside Envoy starts without a log
    return make_batcher()


app = Application(_make)


def _is_parent(headers: Headers) -> bool:
    token = os.environ.get(TOKEN_VARIABLE, "")
    return bool(token) and hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode(), token.encode())


def _timeout(headers: Headers) -> float | None:
    """Seconds of a grpc-timeout header such as ``250m``; None without one."""
    text = headers.get("grpc-timeout", "")
    if not text:
        return None
    if not (found := _TIMEOUT.fullmatch(text)):
        raise InvalidRequest(f"grpc-timeout {text[:16]!r} is malformed: expected up to 8 digits and one of HMSmun")
    return int(found[1]) * _UNITS[found[2]]


async def _read_body(receive: Receive, limit: int, timeout_seconds: float) -> bytes:
    """All that a unary call carries; a message and its prefix, if it is right."""
    event = await receive()
    if event.get("more_body"):
        try:
            async with asyncio.timeout(timeout_seconds):
                return await _read_more(receive, bytearray(event["body"]), limit)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the whole message was here") from None
    body = _body_of(event)
    if len(body) > limit + _PREFIX.size:
        raise too_large(limit)
    return bytes(body)


async def _read_more(receive: Receive, body: bytearray, limit: int) -> bytes:
    more = True
    while more:
        if len(body) > limit + _PREFIX.size:
            raise too_large(limit)
        event = await receive()
        body += _body_of(event)
        more = bool(event.get("more_body"))
    if len(body) > limit + _PREFIX.size:
        raise too_large(limit)
    return bytes(body)


def _body_of(event: MutableMapping[str, Any]) -> bytes:
    if event["type"] == "http.disconnect":
        raise asyncio.CancelledError
    body: bytes = event["body"]
    return body


def _unframe(body: bytes, encoding: str, limit: int) -> bytes:
    """The message behind its five-byte prefix, decompressed."""
    if len(body) < _PREFIX.size:
        raise InvalidRequest("the call has no complete gRPC message")
    compressed, length = _PREFIX.unpack_from(body)
    if length != len(body) - _PREFIX.size:
        raise InvalidRequest("the call must carry exactly one gRPC message")
    message = body[_PREFIX.size :]
    return decompress(message, encoding, limit) if compressed else message


_OK_HEADERS = [(b"content-type", b"application/grpc")]
_OK_TRAILERS = [(b"grpc-status", b"0")]


async def _grpc_ok(send: Send, message: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _OK_HEADERS, "trailers": True})
    await send({"type": "http.response.body", "body": _PREFIX.pack(0, len(message)) + message, "more_body": False})
    await send({"type": "http.response.trailers", "headers": _OK_TRAILERS, "more_trailers": False})


class _StreamDoor:
    """Implements ``shoal.batcher.door.Door``."""

    cancels_reads = False  # pyvoy ends a read that waits once the stream is over, and would log one that is cancelled

    def __init__(self, receive: Receive, send: Send, headers: Headers, message_bytes: int) -> None:
        self.receive = receive
        self.half_closed: Callable[[], None] = lambda: None
        """Called once the caller has half-closed."""
        self._send = send
        self._encoding = headers.get("grpc-encoding", "")
        self._limit = wire.STREAM_CHUNK_BYTES + message_bytes
        self._body = bytearray()
        self._more = True
        self._begun = False

    async def read(self) -> bytes | None:
        """The next message. Raises as its protocol says."""
        if not self._begun:
            await self._begin()
        while (message := self._take()) is None:
            if not self._more:
                if self._body:
                    raise InvalidRequest("the stream ended within a gRPC message")
                self.half_closed()
                return None
            event = await self.receive()
            if event["type"] == "http.disconnect":
                raise GoneError
            self._body += event["body"]
            self._more = bool(event.get("more_body"))
        return message

    async def write(self, message: bytes) -> None:
        """Waits while Envoy's buffer is full. Raises as its protocol says."""
        await self._pass_on({
            "type": "http.response.body", "body": _PREFIX.pack(0, len(message)) + message, "more_body": True
        })  # fmt: skip

    async def end(self, code: Code, message: str, hints: Iterable[tuple[str, str]]) -> None:
        """The stream's status."""
        with suppress(GoneError):
            if not self._begun:
                await _grpc_error(self._send, code, message, hints)
                return
            trailers = _status(code, message, hints)
            await self._pass_on({"type": "http.response.body", "body": b"", "more_body": False})
            await self._pass_on({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})

    async def _begin(self) -> None:
        """Sends the headers, for which some callers wait before they send anything."""
        self._begun = True
        await self._pass_on({
            "type": "http.response.start", "status": 200, "headers": _OK_HEADERS, "trailers": True
        })  # fmt: skip
        await self._pass_on({"type": "http.response.body", "body": b"", "more_body": True})

    async def _pass_on(self, event: MutableMapping[str, Any]) -> None:
        try:
            await self._send(event)
        except OSError as error:  # pyvoy's way to say that the caller has left
            raise GoneError from error

    def _take(self) -> bytes | None:
        """The next message whose bytes are all here."""
        body = self._body
        if len(body) < _PREFIX.size:
            return None
        compressed, length = _PREFIX.unpack_from(body)
        if length > self._limit:
            raise too_large(self._limit)
        end = _PREFIX.size + length
        if len(body) < end:
            return None
        message = bytes(memoryview(body)[_PREFIX.size : end])
        del body[:end]
        return decompress(message, self._encoding, self._limit) if compressed else message


def _status(code: Code, message: str, hints: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [
        (b"grpc-status", str(int(code)).encode()),
        (b"grpc-message", quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()),
        *((name.encode(), value.encode()) for name, value in hints),
    ]


async def _grpc_error(send: Send, code: Code, message: str, hints: Iterable[tuple[str, str]]) -> None:
    """A response of trailers only: gRPC clients read the status from the headers."""
    headers = [*_OK_HEADERS, *_status(code, message, hints)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _plain(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
