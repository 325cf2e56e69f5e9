"""The ceiling: one process that decodes pictures from memory and runs the model, with the parts of Shoal's worker.

No network, no object store, no protocol: what the cores can do at best. It uses the worker's own decoder and engine, as
many instances and as large batches. How the engine is fed matters, so several patterns are tried and the best is taken.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Protocol, Self

import uvloop

from benchmarks.common import cpu
from benchmarks.common.figures import Measurement, best
from shoal.engine.openvino import OpenVinoEngine
from shoal.errors import Internal
from shoal.pictures.decode import Decoder
from shoal.runtime.threads import make_pool
from shoal.service.spec import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection as Pipe
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from shoal.engine.openvino import OpenVinoModel, Precision
    from shoal.modelconfig.model import ModelConfig

_TRIALS = 2


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the engine is fed."""

    batches: int
    """Under way at once, each being decoded, executed or waiting for a free instance."""
    spread: bool
    """Whether all threads decode one batch together, or one thread does and the next batch has another."""

    def __str__(self) -> str:
        return f"{self.batches} batches, each decoded by {'all threads' if self.spread else 'one thread'}"


class RowDecoder(Protocol):
    """Decodes a picture into a row of a batch."""

    def decode(self, data: bytes, out: NDArray[Any]) -> object:
        """Fills ``out``."""
        ...


def workers_decoder(model: ModelConfig) -> RowDecoder:
    """The decoder of Shoal's worker, with its limits."""
    pool = Pool()
    return Decoder(model, max_pixels=pool.max_image_pixels, max_scans=pool.max_image_scans)


@dataclass(frozen=True, slots=True)
class Work:
    """All that the process needs."""

    model: ModelConfig
    pictures: Sequence[bytes]
    cache: Path
    """Where the engine keeps compiled models."""
    threads: int
    """That decode."""
    precision: Precision = "f32"
    make_decoder: Callable[[ModelConfig], RowDecoder] = workers_decoder
    """A function of a module, which the process can import, too."""


@dataclass(frozen=True, slots=True)
class Order:
    """One window."""

    pattern: Pattern
    warm_up_seconds: float
    seconds: float


class Ceiling:
    """The process, and what it is told to do. A context manager."""

    def __init__(self, work: Work) -> None:
        instances = work.model.batching.instance_count
        self._patterns = [Pattern(n, spread) for spread in (False, True) for n in (instances, instances + 1)]
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.pattern = self._patterns[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()

    def choose(self, seconds: float) -> dict[str, list[float]]:
        """Tries each pattern, in turns of so many seconds, and keeps the best; answers images a second of each."""
        rates: dict[str, list[float]] = {str(pattern): [] for pattern in self._patterns}
        for _ in range(_TRIALS):
            for pattern in self._patterns:
                rates[str(pattern)].append(self._run(Order(pattern, seconds / 4, seconds)).images_per_s)
        self.pattern = next(pattern for pattern in self._patterns if str(pattern) == best(rates))
        return rates

    def take(self, pattern: str) -> None:
        """Uses the pattern that an earlier ``choose`` found."""
        self.pattern = next(one for one in self._patterns if str(one) == pattern)

    def measure(self, warm_up_seconds: float, seconds: float) -> Measurement:
        """One window with the best pattern."""
        return self._run(Order(self.pattern, warm_up_seconds, seconds))

    def _run(self, order: Order) -> Measurement:
        try:
            self._pipe.send(order)
            answer = self._pipe.recv()
        except (EOFError, BrokenPipeError):
            raise Internal("the ceiling's process ended; see what it printed") from None
        assert isinstance(answer, Measurement)
        return answer


def _serve(work: Work, pipe: Pipe) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        feeder = runner.run(Feeder.open(work))
        while True:
            try:
                order: Order = pipe.recv()
            except EOFError:
                break
            pipe.send(runner.run(feeder.run(order)))
        runner.run(feeder.close())


class Feeder:
    """Keeps the engine fed."""

    def __init__(self, work: Work, engine: OpenVinoEngine, model: OpenVinoModel) -> None:
        self._engine = engine
        self._model = model
        self._decoder = work.make_decoder(work.model)
        self._threads = make_pool(work.threads, "decode")
        self._pictures: Iterator[bytes] = cycle(work.pictures)
        self._images = 0

    @classmethod
    async def open(cls, work: Work) -> Self:
        """Loads and warms the model."""
        engine = OpenVinoEngine(cache=work.cache, precision=work.precision)
        return cls(work, engine, await engine.load(work.model))

    async def run(self, order: Order) -> Measurement:
        """Measures one window; the batches that are under way at its end finish behind it."""
        stop = asyncio.Event()
        feeding = [asyncio.create_task(self._feed(order.pattern, stop)) for _ in range(order.pattern.batches)]
        await asyncio.sleep(order.warm_up_seconds)
        images, before = self._images, cpu.of_ceiling()
        await asyncio.sleep(order.seconds)
        images, after = self._images - images, cpu.of_ceiling()
        stop.set()
        await asyncio.gather(*feeding)
        return Measurement(images, cpu.spent(before, after))

    async def close(self) -> None:
        """Frees the engine."""
        await self._engine.close()
        self._threads.shutdown()

    async def _feed(self, pattern: Pattern, stop: asyncio.Event) -> None:
        size = self._model.config.batching.max_batch_size
        while not stop.is_set():
            slot = await self._model.acquire()
            try:
                await self._decode(list(islice(self._pictures, size)), slot.input, spread=pattern.spread)
                await self._model.infer(slot, size)
            finally:
                self._model.release(slot)
            self._images += size

    async def _decode(self, pictures: Sequence[bytes], rows: NDArray[np.generic], *, spread: bool) -> None:
        step = 1 if spread else len(pictures)
        parts: list[Future[None]] = [
            self._threads.submit(self._decode_some, pictures[first : first + step], rows[first : first + step])
            for first in range(0, len(pictures), step)
        ]
        await asyncio.gather(*map(asyncio.wrap_future, parts))

    def _decode_some(self, pictures: Sequence[bytes], rows: NDArray[np.generic]) -> None:
        for picture, row in zip(pictures, rows, strict=True):
            self._decoder.decode(picture, row)
