"""Measures what a service costs before anybody calls it: time to start, CPU while idle, memory of each part.

python -m benchmarks.performance.footprint [--starts 5] [--idle 20] [--model NAME] [--images DIR]

The first start, which compiles the model, isn't counted. Memory is read twice, before any request and after some
seconds of load; a part's processes count together. Results: benchmarks/results/footprint.json.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.common import cpu
from benchmarks.common.about import about, use_cores
from benchmarks.common.figures import spread
from benchmarks.common.files import RESULTS, read_pictures, write_json
from benchmarks.common.options import add_images, add_model
from benchmarks.common.service import running, temporary_home
from benchmarks.performance.console import footprint_table
from shoal.client.load.generator import LoadRequest, LoadSettings, run_load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.common.service import Running
    from shoal.modelconfig.model import ModelConfig

    Parts = Mapping[str, Sequence[psutil.Process]]

RESULT = RESULTS / "footprint.json"
SETTLE_SECONDS = 3.0
LOAD_SECONDS = 5.0
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    starts: int
    idle: float
    model: str
    images: Path


def main() -> None:
    """Measures, prints and writes the results."""
    options = _options()
    use_cores()
    result: dict[str, Any] = about()
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        temporary_home(options.model) as (home, model),
    ):
        steps = progress.add_task("first start, which sets up", total=options.starts + 3)
        with running(home) as service:
            first = service.start_seconds
        starts = []
        for number in range(options.starts):
            progress.update(steps, description=f"start {number + 1}", advance=1)
            with running(home) as service:
                starts.append(service.start_seconds)
                if number == options.starts - 1:
                    progress.update(steps, description="idle, then load", advance=1)
                    result |= _observe(service, model, options)
        result |= {"start_s": spread(starts, 2), "first_start_s": round(first, 2)}
    write_json(RESULT, result)
    Console().print(footprint_table(result))


def _options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5, help="that are counted (default 5)")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds without a request (default 20)")
    add_model(parser)
    add_images(parser)
    return Options(**vars(parser.parse_args()))


def _observe(service: Running, model: ModelConfig, options: Options) -> dict[str, Any]:
    """CPU while idle, and memory before and after a load."""
    parts = processes(service)
    time.sleep(SETTLE_SECONDS)
    before = cpu_seconds(parts)
    time.sleep(options.idle)
    idle = {name: round(100 * (after - before[name]) / options.idle, 2) for name, after in cpu_seconds(parts).items()}
    fresh = memory(parts)
    requests = [LoadRequest(model.task, picture, model.name) for picture in read_pictures(options.images)]
    asyncio.run(_load(service, requests))
    return {"idle_cpu_percent": idle, "memory_mib": {"before_requests": fresh, "after_load": memory(parts)}}


def processes(service: Running) -> dict[str, list[psutil.Process]]:
    """Those of each part, and the supervisor's own."""
    parts = {part.name: cpu.tree(part.pid) for part in service.parts}
    return {**parts, "supervisor": [psutil.Process(service.supervisor)]}


def cpu_seconds(parts: Parts) -> dict[str, float]:
    """CPU seconds of each part since its start."""
    return {name: sum(map(cpu.of_process, of)) for name, of in parts.items()}


def memory(parts: Parts) -> dict[str, dict[str, float]]:
    """Resident (RSS) and proportional (PSS: shared pages are divided among their users) MiB of each part."""
    infos = {name: [process.memory_full_info() for process in of] for name, of in parts.items()}
    return {
        name: {kind: round(sum(getattr(info, kind) for info in of) / _MIB, 1) for kind in ("rss", "pss")}
        for name, of in infos.items()
    }


async def _load(service: Running, requests: list[LoadRequest]) -> None:
    settings = LoadSettings(duration_seconds=LOAD_SECONDS, warm_up_seconds=0)
    async with service.client() as client:
        await run_load(client, requests, settings)


if __name__ == "__main__":
    main()
