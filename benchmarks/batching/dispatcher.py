"""CPU microseconds that a request costs the batcher's dispatcher, of this tree and of another commit in turn.

python -m benchmarks.batching.dispatcher --against COMMIT [--rounds 12]

A real batching service, in a process of its own, answers at once. Runs alternate, so that other work on the machine
falls on both; the ratio is that of each pair.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parents[2]
REQUESTS, WARM_UP, CALLERS, BATCH = 20_000, 12_000, 96, 8
MESSAGE_BYTES = 91


def main() -> None:
    """Prints a line a round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="what this tree is compared with")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--role", choices=("worker", "batcher"), help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "worker":
        uvloop.run(_worker())
    elif arguments.role == "batcher":
        uvloop.run(_batcher(arguments.target))
    elif arguments.against:
        from benchmarks.common.commits import unpacked  # the roles' processes are another tree's

        with tempfile.TemporaryDirectory() as folder:
            _compare(unpacked(arguments.against, Path(folder)), arguments.rounds)
    else:
        parser.error("--against COMMIT is missing")


def _compare(other: Path, rounds: int) -> None:
    sources = {"before": other, "after": ROOT / "src"}
    found: dict[str, list[float]] = {name: [] for name in sources}
    worker = subprocess.Popen(
        _command("worker"), env=_environment(sources["after"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        target = worker.stdout.readline().strip()
        if not target:
            sys.exit("the batching service did not start")
        for number in range(rounds):
            for name in sorted(sources, reverse=bool(number % 2)):
                command = [*_command("batcher"), "--target", target]
                done = subprocess.run(command, env=_environment(sources[name]), check=True, stdout=subprocess.PIPE)
                found[name].append(float(done.stdout))
            print({name: round(values[-1], 1) for name, values in found.items()}, flush=True)
    finally:
        worker.terminate()
        worker.wait()
    ratios = [after / before for before, after in zip(found["before"], found["after"], strict=True)]
    for name, values in found.items():
        print(f"{name}: median {statistics.median(values):.1f}, least {min(values):.1f} us of CPU a request")
    print(f"ratio: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")


def _command(role: str) -> list[str]:
    return [sys.executable, __file__, "--role", role]


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT / 'tests'}"}


async def _worker() -> None:
    from shoal.modelconfig.batching import BatchingSettings
    from support.scripted_batches import ScriptedHandler, scripted_worker

    handler = ScriptedHandler(BatchingSettings(max_batch_size=BATCH, max_queue_delay_microseconds=50_000))
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker:
        print(worker.target, flush=True)
        while True:
            await asyncio.sleep(0.2)
            handler.batches.clear()
            handler.methods.clear()
            handler.arrived = asyncio.Queue()


async def _batcher(target: str) -> None:
    from shoal.batcher.dispatch import Dispatcher  # of the tree that PYTHONPATH names

    try:
        from shoal.batcher.core import open_channel
    except ModuleNotFoundError:  # a tree from before November 2026
        open_channel = importlib.import_module("shoal.batcher.server").open_channel

    remembers = "remembered" in inspect.signature(Dispatcher).parameters
    more: dict[str, Any] = {"remembered": 10_000} if remembers else {}
    dispatcher = Dispatcher(open_channel(target), "bench", **more)
    left, began = REQUESTS + WARM_UP, 0.0

    async def caller() -> None:
        nonlocal left, began
        while left > 0:
            left -= 1
            if left == REQUESTS:
                began = time.process_time()
            await dispatcher.submit("/any.Service/Method", "m", "key-1", os.urandom(MESSAGE_BYTES), 30.0)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    print((time.process_time() - began) / REQUESTS * 1e6)
    await dispatcher.close()


if __name__ == "__main__":
    main()
