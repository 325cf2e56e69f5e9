"""CPU time by component, as the kernel counts it for each process and thread (10 ms steps)."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoal.local.state import ServiceState

STAGES = {"tokio": "fetch", "decode": "decode", "infer": "inference"}
"""How the names of a worker's threads begin, and what those do. All other threads are its ``rest``."""

COMPONENTS = ("inference", "decode", "fetch", "rest", "batcher", "router", "store", "client", "supervisor")
"""The first four are the worker's."""

_IDLE = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is counted as user time, too


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CPU seconds since the start of each component, and of everything on our cores."""

    at: float
    """Seconds, monotonic."""
    components: Mapping[str, float]
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
    """From one snapshot to a later one."""
    seconds = after.at - before.at
    components = {name: after.components[name] - value for name, value in before.components.items()}
    others = (after.machine - before.machine - sum(components.values())) / seconds
    return Spent(seconds, components, max(others, 0.0))


def of_service(service: ServiceState) -> Snapshot:
    """The parts of a running service, a worker by stage, and this process as its client."""
    components = dict.fromkeys(COMPONENTS, 0.0)
    for part in service.parts:
        assert part.pid is not None, f"{part.name} isn't running"
        shares = by_stage(part.pid) if part.role == "worker" else {part.role: sum(map(of_process, tree(part.pid)))}
        for name, seconds in shares.items():
            components[name] += seconds
    components["supervisor"] = of_process(psutil.Process(service.pid))
    components["client"] = of_process(psutil.Process())
    return _snapshot(components)


def of_ceiling() -> Snapshot:
    """This process, by stage."""
    return _snapshot(by_stage(os.getpid()))


def by_stage(pid: int) -> dict[str, float]:
    """CPU seconds of one process by what its threads do. What threads spent that have ended is in the ``rest``."""
    process = psutil.Process(pid)
    named = [(_thread_name(pid, thread.id), thread.user_time + thread.system_time) for thread in process.threads()]
    return split(named, of_process(process))


def split(threads: Iterable[tuple[str, float]], whole: float) -> dict[str, float]:
    """Sums (name, seconds) of threads by stage; ``rest`` is what is left of ``whole``."""
    stages = dict.fromkeys(STAGES.values(), 0.0)
    for name, seconds in threads:
        for beginning, stage in STAGES.items():
            if name.startswith(beginning):
                stages[stage] += seconds
    return stages | {"rest": max(whole - sum(stages.values()), 0.0)}


def tree(pid: int) -> list[psutil.Process]:
    """A process, and all that it started and that lives."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def of_process(process: psutil.Process) -> float:
    """CPU seconds of one process, user and system."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _snapshot(components: Mapping[str, float]) -> Snapshot:
    cores = psutil.cpu_times(percpu=True)
    ours = [cores[number] for number in os.sched_getaffinity(0)]
    busy = sum(value for core in ours for name, value in core._asdict().items() if name not in _IDLE)
    return Snapshot(time.monotonic(), components, busy)


def _thread_name(pid: int, thread: int) -> str:
    with suppress(OSError):  # it has ended meanwhile
        return Path(f"/proc/{pid}/task/{thread}/comm").read_text(encoding="utf-8").rstrip()
    return ""
