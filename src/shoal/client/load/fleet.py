"""A load test by one process, or by several that start at the same moment."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from shoal.client.aio import AsyncClient
from shoal.client.load.generator import LoadSettings, Request, run_load
from shoal.client.load.tally import LoadResult, merge
from shoal.errors import Internal, ShoalError
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.context import SpawnProcess

    from shoal.client.connection import Connection


@dataclass(frozen=True, slots=True)
class LoadJob:
    """All that a process needs."""

    connection: Connection
    requests: tuple[Request[AsyncClient], ...]
    settings: LoadSettings
    priority: Priority = Priority.INTERACTIVE
    streams: bool | None = None
    """See ``AsyncClient``."""


def run_job(job: LoadJob, processes: int, advance: Callable[[float], None]) -> LoadResult:
    """Runs ``job``; Ctrl-C ends it early with what was measured.

    Args:
        job: What to send.
        processes: More than one where one core can't send enough; see ``processes_for``.
        advance: Called now and then with the seconds since the start.

    Raises:
        Unavailable: nobody answers at the target.
    """
    if processes == 1:
        return asyncio.run(_run(job, _at_once, advance))
    seed = job.settings.seed
    whole = replace(
        job.settings, seed=random.randrange(2**32) if seed is None else seed
    )  # each draws the same arrivals
    context = multiprocessing.get_context("spawn")
    fleet: dict[Pipe, SpawnProcess] = {}
    try:
        for index in range(processes):
            share = replace(job, settings=whole.share(index, processes))
            ours, theirs = context.Pipe()
            process = context.Process(target=_child, args=(share, theirs), daemon=True)
            process.start()
            theirs.close()
            fleet[ours] = process
        return _direct(fleet, advance)
    except BaseException:
        for process in fleet.values():
            process.terminate()
        raise
    finally:
        for pipe, process in fleet.items():
            pipe.close()
            process.join()


def _direct(fleet: dict[Pipe, SpawnProcess], advance: Callable[[float], None]) -> LoadResult:
    """Starts all once all are ready, then gathers their shares."""
    for pipe in fleet:
        _receive(pipe)
    for pipe in fleet:
        pipe.send(None)
    shares: dict[Pipe, LoadResult] = {}
    while len(shares) < len(fleet):
        try:
            for told in wait([pipe for pipe in fleet if pipe not in shares]):
                assert isinstance(told, Pipe)
                message = _receive(told)
                if isinstance(message, LoadResult):
                    shares[told] = message
                else:
                    advance(float(message or 0))
        except KeyboardInterrupt:
            _interrupt(fleet)
    return merge(list(shares.values()))


def _interrupt(fleet: dict[Pipe, SpawnProcess]) -> None:
    """Passes Ctrl-C on; a terminal has told the processes already, and twice does no harm."""
    for process in fleet.values():
        if process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGINT)


def _receive(pipe: Pipe) -> LoadResult | float | None:
    try:
        message: LoadResult | float | ShoalError | None = pipe.recv()
    except EOFError:
        raise Internal("a load process ended without a result") from None
    if isinstance(message, ShoalError):
        raise message
    return message


def _child(job: LoadJob, pipe: Pipe) -> None:
    async def everyone_is_ready() -> None:
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)

    try:
        pipe.send(asyncio.run(_run(job, everyone_is_ready, pipe.send)))
    except ShoalError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        pass  # the parent has gone: nobody is left to tell


async def _at_once() -> None:
    pass


async def _run(job: LoadJob, ready: Callable[[], Awaitable[None]], advance: Callable[[float], None]) -> LoadResult:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        async with _client(job) as client:
            await client.connect()
            await ready()
            result = await run_load(client, job.requests, job.settings, stop=stop, advance=advance)
            result.sent.update(client.sent)
            return result
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _client(job: LoadJob) -> AsyncClient:
    told = job.connection
    return AsyncClient(told.target, **told.options(), priority=job.priority, streams=job.streams)
