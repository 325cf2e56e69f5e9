"""The blocking client: each method is the asynchronous client's own, run on an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypedDict, TypeVar, Unpack

from shoal.client.aio import AsyncClient
from shoal.errors import Cancelled
from shoal.runtime.signals import loop_factory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    import grpc
    from obstore.store import ObjectStore

    from shoal.client.retry import Retry
    from shoal.client.token import Token
    from shoal.runtime.priority import Priority

P = ParamSpec("P")
T = TypeVar("T")


def _future(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[Client, P], Future[T]]:
    """``method`` as one that answers a future at once; cancelling the future cancels the call."""

    @wraps(method)
    def submit(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._loop.submit(lambda: method(self._client, *args, **kwargs))

    return submit


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[Client, P], T]:
    """``method`` as one that waits for its answer."""

    @wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(lambda: method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Client, P], Generator[T]]:
    """``method`` as a plain generator; leaving it early ends the asynchronous one."""

    @wraps(method)
    def iterate(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        items = method(self._client, *args, **kwargs)
        try:
            while True:
                try:
                    yield self._loop.run(items.__anext__)
                except StopAsyncIteration:
                    return
        finally:
            with suppress(Cancelled):  # a client that was closed meanwhile has ended the generator itself
                self._loop.run(items.aclose)

    return iterate


class Options(TypedDict, total=False):
    """The options of ``AsyncClient``, which describes them."""

    api_key: str | None
    token: Token | None
    store: ObjectStore | None
    key_prefix: str
    timeout_seconds: float
    connections: int
    credentials: grpc.ChannelCredentials | None
    retry: Retry | None
    priority: Priority | str
    streams: bool | None


class Client:
    """``AsyncClient``'s methods for code without an event loop. Any number of threads may share one.

    Takes what ``AsyncClient`` takes. ``submit_…`` answer a ``concurrent.futures.Future`` at once, so that many calls
    are in flight from one thread.
    """

    def __init__(self, target: str = "localhost:8080", **options: Unpack[Options]) -> None:
        self._client = AsyncClient(target, **options)
        self._loop = BackgroundLoop(self._client.close)
        # A client that is never closed is closed when it is collected, or at exit.
        self._finalizer = weakref.finalize(self, self._loop.close)

    connect = _blocking(AsyncClient.connect)
    classify = _blocking(AsyncClient.classify)
    detect = _blocking(AsyncClient.detect)
    segment = _blocking(AsyncClient.segment)
    analyze = _blocking(AsyncClient.analyze)
    infer = _blocking(AsyncClient.infer)
    upload = _blocking(AsyncClient.upload)
    upload_many = _blocking(AsyncClient.upload_many)
    map = _iterating(AsyncClient.map)
    map_analyze = _iterating(AsyncClient.map_analyze)

    submit_classify = _future(AsyncClient.classify)
    submit_detect = _future(AsyncClient.detect)
    submit_segment = _future(AsyncClient.segment)
    submit_analyze = _future(AsyncClient.analyze)
    submit_upload = _future(AsyncClient.upload)

    @property
    def sent(self) -> Mapping[str, int]:
        """``AsyncClient.sent``."""
        return self._client.sent

    def close(self) -> None:
        """Refuses new calls, lets those in flight finish for 5 s, then ends them with ``Cancelled``."""
        self._finalizer()

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BackgroundLoop:
    """An event loop in a thread of its own: uvloop's, where that is installed.

    Args:
        on_close: Runs last, on the loop.
    """

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        self._on_close = on_close
        self._running: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        # A daemon, so that a forgotten client never keeps a program from ending.
        self._thread = threading.Thread(target=self._main, name="shoal-client", daemon=True)
        self._thread.start()
        self._ready.wait()

    def submit(self, call: Callable[[], Awaitable[T]]) -> Future[T]:
        """Starts ``call`` on the loop; raises Cancelled once closed."""
        if self._running is None:
            raise Cancelled("the client is closed")

        async def run() -> T:
            return await call()

        return asyncio.run_coroutine_threadsafe(run(), self._running)

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Waits for ``call``; an interrupt, such as Ctrl-C, cancels it."""
        future = self.submit(call)
        try:
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Ends the loop and its thread."""
        loop, self._running = self._running, None
        if loop is not None:
            loop.call_soon_threadsafe(self._stop.set)
            if threading.current_thread() is not self._thread:  # the garbage collector may run there too
                self._thread.join()

    async def _serve(self) -> None:
        self._running = asyncio.get_running_loop()
        self._ready.set()
        await self._stop.wait()
        await self._on_close()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())
