"""CPU time by component, as the kernel counts it for each process and thread (10 ms steps)."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.common.service import Running

STAGES = {"tokio": "fetch", "decode": "decode", "infer": "inference"}
"""How the names of a worker's threads begin, and what those do. All other threads are its ``rest``."""

COMPONENTS = ("inference", "decode", "fetch", "rest", "batcher", "router", "store", "client", "supervisor")
"""The first four are the worker's."""

_IDLE = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is counted as user time, too


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds of one process since its start."""

    whole: float
    threads: Mapping[int, tuple[str, float]]
    """Of those that live: the number, to the name and the seconds."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CPU seconds since the start of each component, and of everything on our cores."""

    at: float
    """Seconds, monotonic."""
    components: Mapping[str, float]
    workers: Mapping[int, Reading]
    """By process; these are split by stage."""
    machine: float
    """Busy seconds of our cores, whoever used them."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a window took."""

    seconds: float
    components: Mapping[str, float]
    """CPU seconds."""
    other_cores: float
    """Mean number of our cores that something else kept busy: the measurement's noise."""


def spent(before: Snapshot, after: Snapshot) -> Spent:
    """From one snapshot to a later one of the same processes."""
    components = Counter({name: after.components[name] - value for name, value in before.components.items()})
    for pid, reading in before.workers.items():
        components.update(split(reading, after.workers[pid]))
    seconds = after.at - before.at
    others = (after.machine - before.machine - sum(components.values())) / seconds
    return Spent(seconds, dict(components), max(others, 0.0))


def split(before: Reading, after: Reading) -> dict[str, float]:
    """CPU seconds by stage; ``rest`` is what no named thread accounts for, those that ended meanwhile included."""
    stages = dict.fromkeys(STAGES.values(), 0.0)
    for number, (name, seconds) in after.threads.items():
        stage = next((stage for beginning, stage in STAGES.items() if name.startswith(beginning)), None)
        if stage is not None:
            stages[stage] += seconds - before.threads.get(number, ("", 0.0))[1]
    return stages | {"rest": max(after.whole - before.whole - sum(stages.values()), 0.0)}


def of_service(service: Running) -> Snapshot:
    """The parts of a running service, its workers by stage, and this process as its client."""
    components = defaultdict(float, dict.fromkeys(("batcher", "router", "store"), 0.0))
    workers = {}
    for part in service.parts:
        if part.role == "worker":
            workers[part.pid] = read(part.pid)
        else:
            components[part.role] += sum(map(of_process, tree(part.pid)))
    components["client"] = of_process(psutil.Process())
    components["supervisor"] = of_process(psutil.Process(service.supervisor))
    return _snapshot(components, workers)


def of_server(pid: int) -> Snapshot:
    """A server that is not ours, with all that is below ``pid``, and this process as its client."""
    components = {"server": _of_all(tree(pid)), "client": of_process(psutil.Process())}
    return _snapshot(components, {})


def _of_all(processes: list[psutil.Process]) -> float:
    """CPU seconds of these, and of what they started and that has ended."""
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            times = process.cpu_times()
            seconds += of_process(process) + times.children_user + times.children_system
    return seconds


def of_ceiling() -> Snapshot:
    """This process, by stage."""
    return _snapshot({}, {os.getpid(): read(os.getpid())})


def read(pid: int) -> Reading:
    """One process and its threads."""
    process = psutil.Process(pid)
    threads = {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
    named = {number: (_thread_name(pid, number), seconds) for number, seconds in threads.items()}
    return Reading(of_process(process), named)


def tree(pid: int) -> list[psutil.Process]:
    """A process, and all that it started and that lives."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def of_process(process: psutil.Process) -> float:
    """CPU seconds of one process, user and system."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _snapshot(components: Mapping[str, float], workers: Mapping[int, Reading]) -> Snapshot:
    cores = psutil.cpu_times(percpu=True)
    ours = [cores[number] for number in os.sched_getaffinity(0)]
    busy = sum(value for core in ours for name, value in core._asdict().items() if name not in _IDLE)
    return Snapshot(time.monotonic(), components, workers, busy)


def _thread_name(pid: int, thread: int) -> str:
    with suppress(OSError):  # it has ended meanwhile
        return Path(f"/proc/{pid}/task/{thread}/comm").read_text(encoding="utf-8").rstrip()
    return ""
