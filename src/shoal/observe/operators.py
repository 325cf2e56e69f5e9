"""The HTTP server for a part's operators, where ``/metrics`` is: ``GET`` alone, one question a connection.

It lives in a thread and an event loop of its own, so that a part whose own loop is stuck can still be asked, and nobody
who asks can harm the part:

- A connection costs some kilobytes, never a thread. Where there are too many, the first to go is the one that has been
  silent for longest: a scraper asks at once, so slow connections, however many, don't shut it out.
- Each kind of question is worked out one at a time and rested from in between, since it takes the interpreter from what
  the part is there for: at most a quarter of a core. Who asks the same meanwhile shares one answer, which is no older
  than any of their questions.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web
from prometheus_client import disable_created_metrics
from prometheus_client.exposition import choose_encoder

from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.logs import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from socket import socket

    from aiohttp.web_protocol import RequestHandler
    from prometheus_client import CollectorRegistry

T = TypeVar("T")

log = Seldom(logging.getLogger(__name__))

SILENT_SECONDS = 5.0
"""For a question to be here, from its connection on."""
CONNECTION_SECONDS = 30.0
"""For its answer to be read."""
SWEEP_SECONDS = 1.0
"""How often what is too slow is looked for."""
MAX_CONNECTIONS = 128
MAX_WAITING = 16
"""Different questions of one kind that wait; more are told to come again."""
REST = 3.0
"""Times what an answer took, before the next of its kind; no longer than ``MAX_REST_SECONDS``."""
MAX_REST_SECONDS = 1.0
_VERSION = re.compile(r"(?<=^application/openmetrics-text; version=)[^;]*")


@dataclass(frozen=True, slots=True)
class Work:
    """What answers one kind of question."""

    read: Callable[[web.BaseRequest], str]
    """The question: all of a request that the answer depends on, since who asks the same shares one."""
    answer: Callable[[str], web.Response]
    """Answers it; runs in a thread."""


class OperatorServer:
    """Serves from its making until ``close``, or until the process ends."""

    def __init__(self, listen: Endpoint | socket, work: Mapping[str, Work]) -> None:
        """Listens, and starts the thread.

        Args:
            listen: The address; port 0 takes a free one. Or what listens already.
            work: By the beginning of the path; the first that fits.

        Raises:
            ConfigurationError: the port can't be had.
        """
        self._loop = asyncio.new_event_loop()
        self._executor = ThreadPoolExecutor(len(work), "operators")
        self._kinds = {prefix: _QuestionKind(answer, self._executor) for prefix, answer in work.items()}
        self._silent: dict[RequestHandler, float] = {}
        """Connections that haven't asked yet, oldest first, and when they came."""
        self._asked: dict[RequestHandler, float] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="operators", daemon=True)
        self._thread.start()
        try:
            self.endpoint = self._on_loop(self._listen(listen))
        except OSError as error:
            self._stop()
            raise ConfigurationError(f"can't serve metrics on {listen}: {error.strerror}") from error

    def close(self) -> None:
        """Ends every connection; returns when the threads have ended."""
        self._on_loop(self._end())
        self._stop()

    def _on_loop(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._executor.shutdown()

    async def _listen(self, listen: Endpoint | socket) -> Endpoint:
        self._http = web.Server(self._answer, access_log=None, keepalive_timeout=0.0, lingering_time=0.0)
        where = {"host": listen.host, "port": listen.port} if isinstance(listen, Endpoint) else {"sock": listen}
        self._server = await self._loop.create_server(self._connect, **where)
        self._sweep()
        host, port, *_ = self._server.sockets[0].getsockname()
        return Endpoint(listen.host if isinstance(listen, Endpoint) else host, port)

    async def _end(self) -> None:
        self._server.close()
        self._sweeping.cancel()
        for connection in self._http.connections:
            connection.force_close()
        for kind in self._kinds.values():
            await kind.close()

    def _connect(self) -> RequestHandler:
        """A new connection, which may cost another its life."""
        if len(self._silent) + len(self._asked) >= MAX_CONNECTIONS:
            group = self._silent or self._asked
            victim = next(iter(group))
            del group[victim]
            self._loop.call_soon(victim.force_close)  # it may have to be told first that it is connected
        connection = self._http()
        self._silent[connection] = self._loop.time()
        return connection

    def _sweep(self) -> None:
        """Closes what has been there for too long, and forgets what is gone."""
        now, live = self._loop.time(), set(self._http.connections)
        for group, seconds in ((self._silent, SILENT_SECONDS), (self._asked, CONNECTION_SECONDS)):
            for connection, since in list(group.items()):
                age = now - since
                if age >= seconds or (age >= SWEEP_SECONDS and connection not in live):  # a new one isn't, at first
                    del group[connection]
                    connection.force_close()
        self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._silent.pop(request.protocol, None) is not None:
            self._asked[request.protocol] = self._loop.time()
        response = await self._worked_out(request)
        response.force_close()
        return response

    async def _worked_out(self, request: web.BaseRequest) -> web.Response:
        if request.method != "GET":
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET", allow="GET")
        kind = next((kind for prefix, kind in self._kinds.items() if request.path.startswith(prefix)), None)
        if kind is None:
            return refusal(HTTPStatus.NOT_FOUND, "not found")
        return await kind.ask(request)


class _QuestionKind:
    """One kind of question."""

    def __init__(self, work: Work, executor: ThreadPoolExecutor) -> None:
        self._work = work
        self._executor = executor
        self._turn = asyncio.Lock()
        self._waiting: dict[str, asyncio.Future[web.Response]] = {}
        """Nobody has begun to answer these."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, request: web.BaseRequest) -> web.Response:
        """The answer, a copy of one's own of what all those get who ask the same."""
        question = self._work.read(request)
        answer = self._waiting.get(question)
        if answer is None:
            if len(self._waiting) >= MAX_WAITING:
                return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy with other questions", retry_after="1")
            answer = self._waiting[question] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._in_turn(question, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        found = await asyncio.shield(answer)
        copy = web.Response(body=found.body, status=found.status, headers=found.headers)
        copy.enable_compression()  # where the question says that it may be
        return copy

    async def close(self) -> None:
        """Whoever waits is told no more."""
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_turn(self, question: str, answer: asyncio.Future[web.Response]) -> None:
        loop = asyncio.get_running_loop()
        async with self._turn:
            del self._waiting[question]  # whoever asks from now on wants to know what is so from now on
            began = perf_counter()
            try:
                answer.set_result(await loop.run_in_executor(self._executor, self._work.answer, question))
            except Exception as error:
                log.say(type(error).__name__, "a question of an operator failed", error=error)
                answer.set_result(refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "failed; the log has the details"))
            await asyncio.sleep(min(REST * (perf_counter() - began), MAX_REST_SECONDS))


def refusal(status: HTTPStatus, reason: str, **headers: str) -> web.Response:
    """A short text."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(text=reason + "\n", status=status, headers=named)


def serve_metrics(listen: Endpoint, registry: CollectorRegistry) -> OperatorServer:
    """Serves ``/metrics``.

    Args:
        listen: Where.
        registry: The metrics of the part that this process is.

    Raises:
        ConfigurationError: naming the port.
    """
    return OperatorServer(listen, {"/": metrics_of(registry)})


def metrics_of(registry: CollectorRegistry) -> Work:
    """Answers with the metrics, in the form that the scraper asks for, whatever else it says."""
    disable_created_metrics()  # else a second series beside each counter and histogram
    return Work(_form, partial(_metrics, registry))


def _form(request: web.BaseRequest) -> str:
    """The content type: one of few, since all versions of OpenMetrics that may be asked for look alike here."""
    try:
        _, form = choose_encoder(request.headers.get("accept", ""))
    except TypeError:  # a version that is no number
        _, form = choose_encoder("")
    return _VERSION.sub("1.0.0", form)


def _metrics(registry: CollectorRegistry, form: str) -> web.Response:
    encode, _ = choose_encoder(form)
    return web.Response(body=encode(registry), headers={"content-type": form})
