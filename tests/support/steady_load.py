"""An open loop of requests through the SDK, at a steady rate, and what became of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Literal, Protocol

from PIL import Image

from shoal.client import AsyncClient
from shoal.client.retry import Retry
from shoal.errors import DeadlineExceeded, ShoalError
from support.pictures import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import grpc

Outcome = Literal["answered", "expired", "lost"]

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "grey": (99, 99, 99)}
_ROUNDING_SECONDS = 0.05

FILES = {label: encode(Image.new("RGB", (64, 48), colour)) for label, colour in COLOURS.items()}


class Running(Protocol):
    """A service that runs."""

    @property
    def target(self) -> str:
        """What clients call."""
        ...

    @property
    def api_key(self) -> str:
        """A key."""
        ...


@dataclass
class Request:
    """One request; times are seconds of the event loop's clock."""

    label: str
    """What a right answer says."""
    sent: float
    retries: int = 0
    """Of the SDK: pauses before another try, of the upload or of the call."""
    ended: float | None = None
    outcome: Outcome = "lost"
    image_uuid: str = ""
    """Of the answer."""
    trouble: str = ""
    """Why it is lost."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        assert self.ended is not None
        return self.ended - self.sent


@dataclass(frozen=True)
class Counts:
    """What became of requests."""

    sent: int
    answered: int
    """With the right label."""
    retried: int
    """Requests that the SDK tried again, at the upload or the call."""
    resent: int
    """Requests that the batcher took back from a worker and sent to another."""
    executed_twice: int
    expired: int
    """DEADLINE_EXCEEDED, when the deadline had really passed."""
    lost: int
    """All others."""
    slowest_seconds: float

    @classmethod
    def of(cls, requests: Sequence[Request], executed: Counter[str], resent: int) -> Counts:
        """Counts ``requests``, all of which have ended; ``executed`` says how often each uuid was."""
        outcomes = Counter(request.outcome for request in requests)
        return cls(
            sent=len(requests),
            answered=outcomes["answered"],
            retried=sum(request.retries > 0 for request in requests),
            resent=resent,
            executed_twice=sum(executed[request.image_uuid] > 1 for request in requests),
            expired=outcomes["expired"],
            lost=outcomes["lost"],
            slowest_seconds=round(max(request.seconds for request in requests), 2),
        )


_current: ContextVar[Request] = ContextVar("current")


async def _counted_pause(seconds: float) -> None:
    _current.get().retries += 1
    await asyncio.sleep(seconds)


class SteadyLoad:
    """A source of requests that never waits for answers. ``requests`` are in the order in which they were sent."""

    def __init__(
        self, client: AsyncClient, model: str, deadline_seconds: float, images: Mapping[str, bytes | str] = FILES
    ) -> None:
        """Prepares; ``images`` are files, or uuids of uploaded ones, by what a right answer says."""
        self.requests: list[Request] = []
        self._images = images
        self._client = client
        self._model = model
        self._deadline_seconds = deadline_seconds
        self._over = False
        self._changed = asyncio.Condition()

    async def more(self, count: int) -> None:
        """Waits for the end of ``count`` requests that are yet to be sent."""
        first, last = len(self.requests), len(self.requests) + count
        async with self._changed:
            await self._changed.wait_for(
                lambda: len(self.requests) >= last and all(each.ended for each in self.requests[first:last])
            )

    def end(self) -> None:
        """The request that was sent last is the last."""
        self._over = True

    async def run(self, rate: float) -> None:
        """Sends ``rate`` requests a second, and returns at the end of the last."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        labels = cycle(FILES)
        async with asyncio.TaskGroup() as sending:
            while not self._over:
                request = Request(next(labels), loop.time())
                self.requests.append(request)
                sending.create_task(self._send(request))
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def _send(self, request: Request) -> None:
        _current.set(request)
        loop = asyncio.get_running_loop()
        try:
            answer = await self._client.classify(self._images[request.label], self._model)
        except ShoalError as error:
            request.trouble = f"{type(error).__name__}: {error}"
            late = loop.time() - request.sent > self._deadline_seconds - _ROUNDING_SECONDS
            request.outcome = "expired" if isinstance(error, DeadlineExceeded) and late else "lost"
        else:
            image = self._images[request.label]
            assert not isinstance(image, str) or answer.image_uuid == image
            request.image_uuid = answer.image_uuid
            request.trouble = f"answered {answer.classes[0].label} for {request.label}"
            request.outcome = "answered" if answer.classes[0].label == request.label else "lost"
        request.ended = loop.time()
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def steady_load(
    service: Running,
    model: str,
    *,
    rate: float,
    deadline_seconds: float,
    credentials: grpc.ChannelCredentials | None = None,
    by_stream: bool = False,
) -> AsyncIterator[SteadyLoad]:
    """Load from one SDK client until the block ends; then every request has ended too.

    Each request uploads its picture; ``by_stream``, pictures are uploaded before, and all calls go by stream.
    """
    async with AsyncClient(
        service.target,
        api_key=service.api_key,
        timeout_seconds=deadline_seconds,
        retry=Retry(sleep=_counted_pause),
        credentials=credentials,
        streams=True if by_stream else None,
    ) as client:
        images: Mapping[str, bytes | str] = FILES
        if by_stream:
            images = dict(zip(FILES, await client.upload_many(FILES.values()), strict=True))
        load = SteadyLoad(client, model, deadline_seconds, images)
        async with asyncio.TaskGroup() as running:
            running.create_task(load.run(rate))
            try:
                yield load
            finally:
                load.end()
