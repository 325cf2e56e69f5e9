"""Decoders in processes of their own, one a picture, with limits on memory and CPU time.

Interactive pictures go before bulk ones, but for bulk's share; owners share them equally.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import pickle
import signal
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from shoal.errors import Internal, InvalidRequest, Overloaded, Unavailable
from shoal.observe import metrics
from shoal.runtime.fair_time import UrgentTime
from shoal.runtime.logs import Seldom
from shoal.runtime.priority import Priority
from shoal.worker.decoders import decoder_process
from shoal.worker.decoders.decoder_process import DecodeRequest
from shoal.worker.decoders.decoder_starter import StarterProcess, lay_out, memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.pictures.decode import Decoder
    from shoal.pictures.region import PictureRegion
    from shoal.runtime.fair_time import Turn
    from shoal.worker.decoders.decoder_process import ChildEnded

log = logging.getLogger(__name__)

_MAX_WAITING: Final = 1000
"""Most pictures of one owner and priority that wait."""
_AGAIN_SECONDS: Final = 1.0
"""Pause between two starts of the process that starts decoders; doubled after each that has decoded nothing."""
_MOST_AGAIN_SECONDS: Final = 30.0
_KILL_AGAIN_SECONDS: Final = 0.5
"""When a kill that couldn't be sent is sent again."""
_ENDS: Final = ("decoded", "refused", "memory", "cpu", "crashed", "killed", "left")


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding one picture may take."""

    cpu_seconds: float
    memory_bytes: int
    """What decoding may add to what the process has."""
    wall_seconds: float = 60.0
    """A decoder that has had no CPU time to be killed for is killed after this."""


@dataclass(eq=False, slots=True)
class _Job:
    """One picture that waits."""

    begun: asyncio.Future[Turn[_Job]]
    priority: Priority


@dataclass(eq=False, slots=True)
class _Run:
    """One picture that is being decoded."""

    turn: Turn[_Job]
    report: asyncio.Future[ChildEnded]


class _Gone(Exception):
    """The process that starts decoders died; no fault of the picture."""


class DecoderPool:
    """Belongs to one event loop. ``start`` it, and ``close`` it."""

    def __init__(self, processes: int, limits: Limits) -> None:
        """Prepares; ``processes`` pictures are decoded at once."""
        self._limits = limits
        self._free = processes
        self._jobs: UrgentTime[_Job] = UrgentTime()
        self._numbers = itertools.count(1)
        self._running: dict[int, _Run] = {}
        self._pickled: WeakKeyDictionary[Decoder, bytes] = WeakKeyDictionary()
        self._starter: StarterProcess | None = None
        self._again_seconds = _AGAIN_SECONDS
        self._next_start = -math.inf
        self._closed = False
        self._seldom = Seldom(log)
        self.latest: ChildEnded | None = None
        """The end of the child that ended last."""

    def start(self) -> None:
        """Starts the process that starts decoders; it needs a quarter of a second until it has them all loaded."""
        for end in _ENDS:
            metrics.WORKER_DECODERS.labels(end)  # there from the start, with 0
        self._next_start = monotonic() + self._again_seconds
        self._again_seconds = min(2 * self._again_seconds, _MOST_AGAIN_SECONDS)
        try:
            self._starter = StarterProcess(self._end, self._lose)
        except OSError as error:
            self._lose(str(error.strerror))
        else:
            self._serve()

    async def close(self) -> None:
        """Ends all decoders; what they had and what waits for them fails with Unavailable."""
        self._closed = True
        starter, self._starter = self._starter, None
        self._abort()
        while (turn := self._jobs.take()) is not None:
            self._jobs.ended(turn, 0.0)
            if not turn.item.begun.cancelled():
                turn.item.begun.set_exception(_stopping())
                turn.item.begun.exception()  # a waiter that is cancelled meanwhile never looks at it
        if starter is not None:
            await starter.close()

    async def decode(
        self,
        owner: str,
        decoder: Decoder,
        data: Buffer,
        priority: Priority = Priority.INTERACTIVE,
        regions: Sequence[PictureRegion | None] = (None,),
    ) -> tuple[NDArray[Any], float]:
        """Decodes a picture, or regions of it.

        One that was not begun when its caller leaves never is, and one that was is killed.

        Returns:
            ``(regions, *decoder.input.shape)``, and the seconds that it took from when it was begun.

        Raises:
            InvalidRequest: as ``Decoder.decode``; or it crashed the decoder, or took more than the limits allow.
            Overloaded: too many pictures of this owner and priority wait.
            Unavailable: the pool is closed, had no CPU time for it, or couldn't start a process.
        """
        for _ in range(2):
            turn = await self._take_turn(owner, priority)
            began = perf_counter()
            try:
                return await self._decode(turn, decoder, data, regions), perf_counter() - began
            except _Gone:
                continue  # as soon as it is there again
        raise Unavailable("the picture's decoder died; try again")

    async def _take_turn(self, owner: str, priority: Priority) -> Turn[_Job]:
        if self._closed:
            raise _stopping()
        if self._jobs.waiting(owner, priority) >= _MAX_WAITING:
            raise Overloaded("too many of your pictures wait for a decoder; try again later")
        job = _Job(asyncio.get_running_loop().create_future(), priority)
        self._jobs.put(owner, job)
        self._serve()
        try:
            return await job.begun
        except asyncio.CancelledError:
            begun = job.begun
            if not self._jobs.discard(owner, job) and not begun.cancelled() and begun.exception() is None:
                self._finish(begun.result(), 0.0)
            raise

    def _serve(self) -> None:
        """Gives free places to those whose turn it is."""
        while self._free and self._starter is not None and (turn := self._jobs.take()) is not None:
            if turn.item.begun.cancelled():
                self._jobs.ended(turn, 0.0)
                continue
            self._free -= 1
            turn.item.begun.set_result(turn)

    async def _decode(
        self, turn: Turn[_Job], decoder: Decoder, data: Buffer, regions: Sequence[PictureRegion | None]
    ) -> NDArray[Any]:
        dtype, shape = np.dtype(decoder.input.dtype), (len(regions), *decoder.input.shape)
        size = math.prod(shape) * dtype.itemsize
        try:
            output = memory(size)
        except OSError as error:
            self._finish(turn, 0.0)
            raise Unavailable(f"there is no memory for a picture: {error.strerror}; try again") from error
        try:
            self._judge(await self._run(turn, self._code(decoder, regions), data, output, size))
            pixels = os.pread(output, size, 0)  # a copy: mapped memory may be cut off under its reader
        finally:
            os.close(output)
        if len(pixels) != size:
            raise Internal("a decoder's picture is incomplete")
        return np.frombuffer(pixels, dtype).reshape(shape)

    def _code(self, decoder: Decoder, regions: Sequence[PictureRegion | None]) -> bytes:
        """Both, as the child reads them, one pickle after the other."""
        pickled = self._pickled.get(decoder) or self._pickled.setdefault(decoder, pickle.dumps(decoder))
        return pickled + pickle.dumps([region and tuple(region) for region in regions])

    async def _run(self, turn: Turn[_Job], code: bytes, data: Buffer, output: int, out_bytes: int) -> ChildEnded:
        """The end of the child that has decoded ``data`` into ``output``. Raises _Gone, or Unavailable."""
        loop = asyncio.get_running_loop()
        try:
            given = await lay_out(code, data)
        except BaseException:
            self._finish(turn, 0.0)
            raise
        if self._starter is None:  # it died meanwhile
            os.close(given)
            self._finish(turn, 0.0)
            raise _Gone
        number, run = next(self._numbers), _Run(turn, loop.create_future())
        request = DecodeRequest(
            decoder_process.DECODE, number, self._limits.cpu_seconds, self._limits.memory_bytes, len(code), out_bytes
        )
        sent = self._starter.send(request, (given, output))
        os.close(given)
        if not sent:
            self._finish(turn, 0.0)
            self._seldom.say("send", "a picture couldn't be handed to a decoder: the socket to them is full")
            raise Unavailable("the picture couldn't be handed to a decoder; try again")
        self._running[number] = run
        overdue = loop.call_later(self._limits.wall_seconds, self._kill, number)
        try:
            return await asyncio.shield(run.report)
        except asyncio.CancelledError:
            self._kill(number)
            _count("left")
            raise
        finally:
            overdue.cancel()

    def _kill(self, number: int) -> None:
        """Until it is sent: one that isn't killed may keep its place for ever."""
        if self._starter is None or number not in self._running:
            return
        if not self._starter.send(DecodeRequest(decoder_process.KILL, number), ()):
            asyncio.get_running_loop().call_later(_KILL_AGAIN_SECONDS, self._kill, number)

    def _judge(self, report: ChildEnded) -> None:
        """Raises what became of a picture, unless it is there."""
        limits, code = self._limits, os.waitstatus_to_exitcode(report.status)
        if report.said == decoder_process.DONE:
            return _count("decoded")
        if report.said == decoder_process.REFUSED:
            _count("refused")
            raise InvalidRequest(report.text)
        if report.said == decoder_process.NO_MEMORY:
            _count("memory")
            raise InvalidRequest(
                f"decoding the picture takes more than {limits.memory_bytes:,} bytes of memory, which is the limit"
            )
        if report.said == decoder_process.NOT_STARTED:
            self._seldom.say(report.text, "a decoder couldn't be started: %s", report.text)
            raise Unavailable(f"no decoder could be started for the picture: {report.text}; try again")
        if code in {-signal.SIGPROF, -signal.SIGXCPU}:
            _count("cpu")
            raise InvalidRequest(
                f"decoding the picture takes more than {limits.cpu_seconds:g} s of CPU time, which is the limit"
            )
        if code == -signal.SIGKILL and not report.said:
            _count("killed")
            raise Unavailable("the picture's decoder was killed, or got no CPU time; try again")
        _count("crashed")
        if code < 0 and not report.said:
            raise InvalidRequest(f"the picture is damaged: its decoder crashed ({signal.Signals(-code).name})")
        raise Internal(f"a picture's decoder failed: {report.text or code}")

    def _end(self, report: ChildEnded) -> None:
        """A child is gone."""
        self._again_seconds = _AGAIN_SECONDS
        run, self.latest = self._running.pop(report.job), report
        if not run.report.done():
            run.report.set_result(report)
        self._finish(run.turn, report.cpu_seconds)

    def _finish(self, turn: Turn[_Job], seconds: float) -> None:
        self._jobs.ended(turn, seconds)
        self._free += 1
        self._serve()

    def _lose(self, reason: str = "it died") -> None:
        """The process that starts decoders is gone, and all of them with it."""
        self._starter = None
        self._abort()
        log.warning("there is no process to start decoders: %s; starting it again", reason)
        wait = max(0.0, self._next_start - monotonic())
        asyncio.get_running_loop().call_later(wait, self._start_again)

    def _start_again(self) -> None:
        if not self._closed and self._starter is None:
            self.start()

    def _abort(self) -> None:
        for run in list(self._running.values()):
            if not run.report.done():
                run.report.set_exception(_Gone())
                run.report.exception()  # a waiter that was cancelled never looks at it
            self._finish(run.turn, 0.0)
        self._running.clear()


def _stopping() -> Unavailable:
    return Unavailable("the worker is stopping")


def _count(end: str) -> None:
    metrics.WORKER_DECODERS.labels(end).inc()
