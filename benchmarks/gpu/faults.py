"""What becomes of requests to a service with a GPU whose parts die, or that runs out of memory. Prints JSON.

python -m benchmarks.gpu.faults [--server FOLDER] [--seconds 20] [--output FILE] [TRIAL…]

Needs what ``benchmarks.gpu.end_to_end`` needs. Each trial has a service of its own under load; requests that fail are
counted, those that the client sent again are not failures. The trials:

- ``triton_killed``, ``worker_killed``: SIGKILL, in the middle of the load.
- ``shared_memory_full``: a worker is killed while /dev/shm is full, and so starts anew without any. It fills /dev/shm,
  so it has to be a small one: ``unshare -m sh -c "mount -t tmpfs -o size=2g tmpfs /dev/shm && python -m …"``.
- ``gpu_memory_taken``: another process takes nearly all of the GPU's memory, in the middle of the load.
- ``batch_too_large``: the same before the start, for a model whose lanes don't fit in what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.common.about import about
from benchmarks.common.files import RESULTS, write_json
from benchmarks.common.options import add_names
from benchmarks.common.service import running
from benchmarks.common.unpacked import use_unpacked
from benchmarks.gpu import photographs
from benchmarks.gpu.end_to_end import NETWORK, add_network, upload
from shoal.client.connection import find_connection
from shoal.client.load.fleet import LoadJob, run_job
from shoal.client.load.generator import LoadSettings
from shoal.errors import Unavailable
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.common.service import Running

RESULT = RESULTS / "gpu_faults.json"
SHARED_MEMORY = Path("/dev/shm")
RATE = 2000.0
"""Requests a second: a sixth of what the service carries."""
PROCESSES = 2
LEFT_MIB = {"gpu_memory_taken": 64, "batch_too_large": 3000}
"""Of the GPU's memory."""
LARGE_BATCH = 2048
_SMALL_BLOCKS = 2**20
"""Of 4 KiB."""
_TELLING = re.compile("WARN|ERROR|error|memory|ended|again|killed", re.IGNORECASE)
_LOG_LINES = 60
_HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]) * 2**20, dtype=torch.uint8, device="cuda")
print("taken", flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Tries all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    add_names(parser, "trial", TRIALS)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-gpu-")))
        if options.server:
            use_unpacked(options.server, scratch)
        network = scratch / "network.pt"
        subprocess.run([sys.executable, "-m", "benchmarks.gpu.network", NETWORK, network], check=True)
        result: dict[str, Any] = {**about(), "rate_per_s": RATE, "seconds": options.seconds, "trials": {}}
        for name in options.trials:
            trial = TRIALS[name]
            home = Home(scratch / name)
            add_network(home, NETWORK, network, LARGE_BATCH if trial is _batch_too_large else 64)
            result["trials"][name] = told = trial(home, options.seconds)
            print(name, json.dumps(told, indent=1), file=sys.stderr)
            write_json(options.output, result)


def _triton_killed(home: Home, seconds: float) -> dict[str, Any]:
    return _under_load(home, seconds, lambda service: _kill(service, "triton"))


def _worker_killed(home: Home, seconds: float) -> dict[str, Any]:
    return _under_load(home, seconds, lambda service: _kill(service, "worker"))


def _shared_memory_full(home: Home, seconds: float) -> dict[str, Any]:
    if not os.path.ismount(SHARED_MEMORY) or os.statvfs(SHARED_MEMORY).f_blocks > _SMALL_BLOCKS:
        raise SystemExit(f"{SHARED_MEMORY} is too large to be filled: run this trial as its text says")
    with ExitStack() as stack:

        def fault(service: Running) -> None:
            stack.enter_context(_full(SHARED_MEMORY))
            _kill(service, "worker")

        return _under_load(home, seconds, fault)


def _gpu_memory_taken(home: Home, seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        return _under_load(home, seconds, lambda _: stack.enter_context(_taken(LEFT_MIB["gpu_memory_taken"])))


def _batch_too_large(home: Home, seconds: float) -> dict[str, Any]:
    with _taken(LEFT_MIB["batch_too_large"]):
        try:
            return _under_load(home, seconds, lambda _: None)
        except Unavailable as error:
            return {"refused": str(error)}


TRIALS: dict[str, Callable[[Home, float], dict[str, Any]]] = {
    "triton_killed": _triton_killed,
    "worker_killed": _worker_killed,
    "shared_memory_full": _shared_memory_full,
    "gpu_memory_taken": _gpu_memory_taken,
    "batch_too_large": _batch_too_large,
}


def _under_load(home: Home, seconds: float, fault: Callable[[Running], object]) -> dict[str, Any]:
    """A third of the load's time after its start, ``fault`` happens."""
    file = home.root / "shoal.yaml"
    file.write_text(json.dumps({"pools": {"default": {"engine": "triton", "worker_processes": 4}}}), encoding="utf-8")
    with running(home, file) as service:
        requests = upload(service, photographs.make("500x375"), {NETWORK: 1.0})
        settings = LoadSettings(rate=RATE, duration_seconds=seconds, warm_up_seconds=1.0)
        timer: list[threading.Timer] = []

        def advance(_: float) -> None:
            if not timer:
                timer.append(threading.Timer(seconds / 3, fault, (service,)))
                timer[0].start()

        result = run_job(LoadJob(find_connection(None, None, home), requests, settings), PROCESSES, advance)
        timer[0].join()
        logs = [file.read_text("utf-8", "replace") for file in sorted(home.root.rglob("*.log"))]
    told = result.summary()
    return {
        "answered": len(result.latencies),
        "answered_within_the_time": result.answered,
        "failed": dict(result.failed.codes),
        "latency_ms": told["latency_ms"],
        "log": [line for log in logs for line in log.splitlines() if _TELLING.search(line)][:_LOG_LINES],
    }


def _kill(service: Running, role: str) -> None:
    part = next(part for part in service.parts if part.role == role)
    process = psutil.Process(part.pid)
    for each in [*process.children(recursive=True), process]:
        os.kill(each.pid, signal.SIGKILL)


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Takes what is left of a memory file system."""
    file = folder / "shoal-fault"
    state = os.statvfs(folder)
    with file.open("wb") as held:
        os.posix_fallocate(held.fileno(), 0, state.f_bavail * state.f_frsize)
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def _taken(left_mib: int) -> Iterator[None]:
    """Takes the GPU's memory but ``left_mib``."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOG, str(left_mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as hog:
        assert hog.stdin
        assert hog.stdout
        began = time.monotonic()
        if hog.stdout.readline().strip() != "taken":
            raise SystemExit("the GPU's memory couldn't be taken")
        print(f"memory taken after {time.monotonic() - began:.1f} s", file=sys.stderr)
        yield
        hog.stdin.close()


if __name__ == "__main__":
    main()
