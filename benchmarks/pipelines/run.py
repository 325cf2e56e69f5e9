"""Analyze beside a client, and a Triton, that do the same: detect, cut, classify. 10 minutes.

PYTHONPATH=tests python -m benchmarks.pipelines.run [--seconds 5] [--rounds 3] [--objects 1 5 30] [--cores 2]
    [--at-once 8 32] [--output FILE]

All are asked in turns, few and many pictures at a time, at 1, 5 and 30 objects a picture, on two cores; what they
answer is compared first. For each core there is a worker, for each four a process of each pipeline. The result is
benchmarks/results/pipelines.json. Then ``overload``, which is printed alone: twice the pictures that the pipeline can
do, each with a second's time. ``--objects`` with none: overload alone; ``--no-overload``: without it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks.common import cpu, service
from benchmarks.common.about import about, use_cores
from benchmarks.common.files import RESULTS, read_pictures, write_json
from benchmarks.pipelines.compare import Comparison
from benchmarks.pipelines.models import CLASSIFIER, DETECTOR, PIPELINE, add_models
from benchmarks.pipelines.names import CLIENT, STORED, TRITON, UPLOADED
from benchmarks.pipelines.scale import Scale
from benchmarks.pipelines.triton import within_triton
from benchmarks.pipelines.ways import ByHand, Stored, Uploaded, store, total
from benchmarks.pipelines.window import Window
from shoal.errors import ShoalError
from shoal.service.home import Home

if TYPE_CHECKING:
    from benchmarks.common.service import Running
    from benchmarks.pipelines.ways import Way
    from shoal.client import AsyncClient

COUNTS: Final = (1, 5, 30)
TICK_SECONDS: Final = 0.02
DEADLINE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 30.0


def main() -> None:
    """Measures, writes the result and prints overload."""
    options = _parser().parse_args()
    scale = Scale(len(use_cores(options.cores)))
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        home = Home(Path(folder))
        add_models(home.models, COUNTS, instances=1)
        file = home.root / "shoal.yaml"
        file.write_text(_service_file(scale))
        with service.running(home, file) as running:
            measured = uvloop.run(_measure(running, options, scale, home.root / "triton"))
    if measured:
        settings = {"seconds": options.seconds, "rounds": options.rounds, "at_once": options.at_once or scale.at_once}
        told = {"load_average": round(load_average, 2), "settings": settings}
        write_json(options.output, {**about(), **told, **measured})
        print(options.output)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=float, default=5.0, help="of each window")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument(
        "--objects", type=int, nargs="*", default=COUNTS, choices=COUNTS, help="a picture; none: overload alone"
    )
    made.add_argument("--cores", type=int, default=2, help="for everything; fewer where there are no more")
    made.add_argument("--at-once", type=int, nargs="+", help="pictures; default: 4 and 16 for each core")
    made.add_argument("--no-overload", action="store_true")
    made.add_argument("--output", type=Path, default=RESULTS / "pipelines.json")
    return made


def _service_file(scale: Scale) -> str:
    processes = {"replicas": scale.others, "max_pictures": scale.max_pictures}
    pipelines = {
        PIPELINE.format(count): {
            "detect": {"model": DETECTOR.format(count), "max_boxes": 50},
            "then": [{"model": CLASSIFIER}],
            **processes,
        }
        for count in COUNTS
    }
    pools = {"default": {"models": ["*"], "replicas": scale.workers}}
    return json.dumps({"pools": pools, "models": {CLASSIFIER: {"batchers": scale.others}}, "pipelines": pipelines})


async def _measure(running: Running, options: argparse.Namespace, scale: Scale, scratch: Path) -> dict[str, Any]:
    pictures = read_pictures()
    async with running.client() as client:
        uuids = await store(client, pictures, scale.workers)
        found = await _compare(running, client, pictures, uuids, options, scale, scratch) if options.objects else {}
        if not options.no_overload:
            await _overload(running, client, uuids, 5, options, scale)
    return found


async def _compare(
    running: Running,
    client: AsyncClient,
    pictures: list[bytes],
    uuids: list[str],
    options: argparse.Namespace,
    scale: Scale,
    scratch: Path,
) -> dict[str, Any]:
    async with within_triton(scratch, COUNTS, pictures, scale) as triton:
        ways: dict[str, Way] = {
            UPLOADED: Uploaded(running, client, pictures),
            STORED: Stored(running, client, pictures, uuids),
            CLIENT: ByHand(running, client, pictures),
            TRITON: triton,
        }
        rows: list[dict[str, Any]] = []
        for at_once in options.at_once or scale.at_once:
            comparison = Comparison(ways, triton, len(pictures), at_once, options.seconds)
            for count in options.objects:
                rows += [{"at_once": at_once, **row} for row in await comparison.run(count, options.rounds)]
        return {"rows": rows}


async def _overload(
    running: Running,
    client: AsyncClient,
    uuids: list[str],
    count: int,
    options: argparse.Namespace,
    scale: Scale,
) -> None:
    """Twice the peak, in an open loop, each with ``DEADLINE_SECONDS``; pictures are stored already.

    The peak is without deadlines, so that none is refused. It is measured before and after, and the CPU by component
    beside both: refusing costs some, too.
    """
    pictures = cycle(uuids)
    pipeline = PIPELINE.format(count)

    async def ask(found: Window, seconds: float) -> None:
        try:
            answer = await client.analyze(next(pictures), pipeline, timeout_seconds=seconds)
        except ShoalError:
            found.failed += 1
            return
        lacking = sum(step.failed + (step.calls < each) for step, each in zip(answer.steps, (1, count), strict=True))
        found.whole += not lacking
        found.parts += bool(lacking)

    print(
        "\n| load | asked for | whole a second | of the peak | refused or late | lacked a part "
        "| engine's time for those | CPU ms a whole picture |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    seconds = options.seconds
    await _peak(ask, scale.many_at_once, min(seconds, 2.0))
    loads = ["peak", *["twice", "peak"] * options.rounds]
    rates: list[float] = []
    told: list[_Overload] = []
    for load in loads:
        if load == "peak":
            measured = await _measured(running, count, _peak(ask, scale.many_at_once, seconds))
            rates.append(measured.rate)
        else:
            measured = await _measured(running, count, _open(ask, 2 * rates[-1], seconds))
        told.append(measured)
    for place, (load, each) in enumerate(zip(loads, told, strict=True)):
        peak = each.rate if load == "peak" else (told[place - 1].rate + told[place + 1].rate) / 2
        print(f"| {load} | {each.row(peak)} |")


_Ask = Callable[["Window", float], Awaitable[None]]
"""Asks about one picture, with so many seconds' time."""


@dataclass(frozen=True)
class _Overload:
    """What came of one window."""

    found: Window
    spent: cpu.Spent
    dropped: float
    """Share of the engine's time that went into pictures that were not answered whole."""

    @property
    def rate(self) -> float:
        """Whole pictures a second."""
        return self.found.whole / self.spent.seconds

    def row(self, peak: float) -> str:
        """Cells of a table."""
        found, worker = self.found, ("inference", "decode", "fetch", "rest")
        parts = dict(self.spent.components)
        parts["worker"] = sum(parts.pop(name, 0.0) for name in worker)
        each = {name: 1000 * seconds / max(1, found.whole) for name, seconds in parts.items()}
        told = ", ".join(f"{name} {ms:.1f}" for name, ms in sorted(each.items(), key=lambda one: -one[1]) if ms >= 0.05)
        asked = found.whole + found.parts + found.failed
        cells = [f"{asked / self.spent.seconds:.0f}/s", f"{self.rate:.1f}", f"{self.rate / peak:.2f}"]
        cells += [str(found.failed), str(found.parts), f"{100 * self.dropped:.1f} %"]
        return " | ".join([*cells, f"{told}; others {self.spent.other_cores:.2f} cores"])


async def _measured(running: Running, count: int, load: Awaitable[Window]) -> _Overload:
    """CPU and engine seconds from the first call to the last answer."""
    models = DETECTOR.format(count), CLASSIFIER
    before, work = cpu.of_service(running), [await _work(running, model) for model in models]
    found = await load
    spent = cpu.spent(before, cpu.of_service(running))
    after = [await _work(running, model) for model in models]
    used = [(now[0] - then[0], now[1] - then[1]) for then, now in zip(work, after, strict=True)]
    detector, classifier = (busy / max(1.0, items) for busy, items in used)
    useful = found.whole * (detector + count * classifier)
    return _Overload(found, spent, max(0.0, 1 - useful / max(1e-9, sum(busy for busy, _ in used))))


async def _peak(ask: _Ask, at_once: int, seconds: float) -> Window:
    """A closed loop of more callers than the pipeline has room for."""
    found, ends = Window(), perf_counter() + seconds

    async def work() -> None:
        while perf_counter() < ends:
            await ask(found, PATIENCE_SECONDS)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return found


async def _open(ask: _Ask, rate: float, seconds: float) -> Window:
    """An open loop: as the answers of a batch come together, so do the pictures of ``TICK_SECONDS``."""
    asked: list[asyncio.Future[None]] = []
    found, began = Window(), perf_counter()
    while (now := perf_counter() - began) < seconds:
        asked += [asyncio.ensure_future(ask(found, DEADLINE_SECONDS)) for _ in range(int(rate * now) - len(asked))]
        await asyncio.sleep(TICK_SECONDS)
    await asyncio.gather(*asked)
    return found


async def _work(running: Running, model: str) -> tuple[float, float]:
    """Seconds of the engine, and items."""
    busy = await total(running, "worker", "shoal_worker_compute_seconds_sum", model=model)
    return busy, await total(running, "worker", "shoal_worker_batch_size_sum", model=model)


if __name__ == "__main__":
    try:
        main()
    except ShoalError as error:
        raise SystemExit(str(error)) from None
