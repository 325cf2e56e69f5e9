"""From requests to answers: one thread prepares, a thread a lane waits for the lane's batch. Needs torch.

One thread decodes: several only slow each other. It takes a lane before it decodes, into the lane's own frames.
"""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch import Batch
    from lane import Lane
    from preparing import Preparer

_log = logging.getLogger(__name__)


class Job(Protocol):
    """A batch that somebody waits for."""

    batch: Batch
    decoded: float
    """Seconds; is told."""

    def begin(self) -> None:
        """Its turn has come."""

    def answer(self, outputs: Mapping[str, torch.Tensor], seconds: float) -> None:
        """Takes the outputs, ``(n, …)`` each, and the seconds that they took."""

    def fail(self, reason: str) -> None:
        """Nothing came of it."""


class Pipeline:
    """Batches on their way: one is prepared while others execute, each in a lane."""

    def __init__(self, preparer: Preparer, lanes: list[Lane]) -> None:
        """Starts the threads."""
        self._preparer = preparer
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._free: SimpleQueue[Lane] = SimpleQueue()
        self._running: dict[Lane, SimpleQueue[Job | None]] = {lane: SimpleQueue() for lane in lanes}
        for lane in lanes:
            self._free.put(lane)
        self._device = torch.cuda.current_device()
        self._threads = [threading.Thread(target=self._prepare, daemon=True)]
        self._threads += [threading.Thread(target=self._answer, args=(lane,), daemon=True) for lane in lanes]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> None:
        """Takes a job, to be answered in its turn."""
        self._inbox.put(job)

    def close(self) -> None:
        """Returns once all are answered."""
        self._inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _prepare(self) -> None:
        torch.cuda.set_device(self._device)
        while (job := self._inbox.get()) is not None:
            lane = self._free.get()
            try:
                job.begin()
                prepared, job.decoded = self._preparer.prepare(job.batch, lane.frames)
                lane.start(len(job.batch.rows), prepared)
            except Exception as error:
                self._free.put(lane)
                _fail(job, error)
            else:
                self._running[lane].put(job)
            del job  # whoever waits for the next one keeps nothing of the last
        for waiting in self._running.values():
            waiting.put(None)

    def _answer(self, lane: Lane) -> None:
        torch.cuda.set_device(self._device)
        while (job := self._running[lane].get()) is not None:
            try:
                outputs, seconds = lane.wait()
            except Exception as error:
                self._free.put(lane)
                _fail(job, error)
            else:
                self._free.put(lane)
                _answer(job, outputs, seconds)
                del outputs
            del job


def _answer(job: Job, outputs: Mapping[str, torch.Tensor], seconds: float) -> None:
    """What goes wrong, such as no room for the answer, is the job's alone: the lane goes on."""
    try:
        job.answer(outputs, seconds)
    except Exception as error:
        _fail(job, error)


def _fail(job: Job, error: Exception) -> None:
    reason = _reason(error, job)
    try:
        job.fail(reason)
    except Exception:
        _log.exception("a batch that failed can't be answered: %s", reason)
    if isinstance(error, RuntimeError) and not isinstance(error, torch.cuda.OutOfMemoryError):
        _leave_if_broken()


def _leave_if_broken() -> None:
    """After some errors a process can't use its GPU any more; the worker has the model loaded anew."""
    try:
        torch.zeros(1, device="cuda").cpu()
    except RuntimeError:
        _log.exception("the GPU can't be used any more")
        os._exit(1)


def _reason(error: Exception, job: Job) -> str:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        rows = len(job.batch.rows)
        return f"the GPU has no memory left for a batch of {rows}: lower max_batch_size or shoal.lanes; {error}"
    return str(error)
