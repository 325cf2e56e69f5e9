"""Analyze beside a client, and a Triton, that do the same: detect, cut, classify. 5 minutes.

PYTHONPATH=tests python -m benchmarks.pipelines.run [--seconds 5] [--rounds 3] [--objects 1 5 30] [--output FILE]

All are asked in turns, eight pictures at a time, at 1, 5 and 30 objects a picture, on two cores; what they answer is
compared first. The result is benchmarks/results/pipelines.json. Then ``overload``, which is printed alone: twice the
pictures that the pipeline can do, each with a second's time. ``--objects`` with none: overload alone;
``--no-overload``: without it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks.common import service
from benchmarks.common.about import about, use_cores
from benchmarks.common.files import RESULTS, read_pictures, write_json
from benchmarks.pipelines.compare import AT_ONCE, Comparison
from benchmarks.pipelines.models import CLASSIFIER, DETECTOR, PIPELINE, add_models
from benchmarks.pipelines.names import CLIENT, STORED, TRITON, UPLOADED
from benchmarks.pipelines.triton import within_triton
from benchmarks.pipelines.ways import ByHand, Stored, Uploaded
from benchmarks.pipelines.window import Window, closed_loop
from shoal.errors import ShoalError
from shoal.local import state
from shoal.service.home import Home
from support.metrics import sample

if TYPE_CHECKING:
    from benchmarks.common.service import Running
    from benchmarks.pipelines.ways import Way
    from shoal.client import AsyncClient

COUNTS: Final = (1, 5, 30)
MAX_PICTURES: Final = 24
MANY_AT_ONCE: Final = 64
"""Enough for the most pictures a second."""
DEADLINE_SECONDS: Final = 1.0


def main() -> None:
    """Measures, writes the result and prints overload."""
    options = _parser().parse_args()
    use_cores()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        home = Home(Path(folder))
        add_models(home.models, COUNTS)
        file = home.root / "shoal.yaml"
        file.write_text(_service_file())
        with service.running(home, file) as running:
            measured = uvloop.run(_measure(running, options, home.root / "triton"))
    if measured:
        settings = {"seconds": options.seconds, "rounds": options.rounds, "at_once": AT_ONCE}
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
    made.add_argument("--no-overload", action="store_true")
    made.add_argument("--output", type=Path, default=RESULTS / "pipelines.json")
    return made


def _service_file() -> str:
    then = f"then: [{{model: {CLASSIFIER}}}]"
    lines = [
        f"  {PIPELINE.format(n)}: {{detect: {{model: {DETECTOR.format(n)}, max_boxes: 50}}, {then}, "
        f"max_pictures: {MAX_PICTURES}}}"
        for n in COUNTS
    ]
    return "\n".join(["pipelines:", *lines, ""])


async def _measure(running: Running, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    pictures = read_pictures()
    async with running.client() as client:
        found = await _compare(running, client, pictures, options, scratch) if options.objects else {}
        if not options.no_overload:
            await _overload(running, client, pictures, 5, options.seconds)
    return found


async def _compare(
    running: Running, client: AsyncClient, pictures: list[bytes], options: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    async with within_triton(scratch, COUNTS, pictures) as triton:
        stored = Stored(running, client, pictures)
        await stored.prepare()
        ways: dict[str, Way] = {
            UPLOADED: Uploaded(running, client, pictures),
            STORED: stored,
            CLIENT: ByHand(running, client, pictures),
            TRITON: triton,
        }
        comparison = Comparison(ways, triton, len(pictures), options.seconds)
        return {"rows": [row for count in options.objects for row in await comparison.run(count, options.rounds)]}


async def _overload(running: Running, client: AsyncClient, pictures: list[bytes], count: int, seconds: float) -> None:
    """Twice the peak, in an open loop, each with ``DEADLINE_SECONDS``; pictures are uploaded before."""
    uuids = cycle([await client.upload(picture) for picture in pictures])

    async def one(_: int) -> int:
        await client.analyze(next(uuids), f"look-{count}")
        return 0

    peak = len((await closed_loop(one, seconds, MANY_AT_ONCE)).seconds) / seconds
    before = [await _work(running, model) for model in (DETECTOR.format(count), CLASSIFIER)]
    asked: list[asyncio.Task[None]] = []
    found, began = Window(), perf_counter()

    async def ask() -> None:
        try:
            answer = await client.analyze(next(uuids), f"look-{count}", timeout_seconds=DEADLINE_SECONDS)
        except ShoalError:
            found.failed += 1
            return
        lacking = sum(step.failed + (step.calls < each) for step, each in zip(answer.steps, (1, count), strict=True))
        found.whole += not lacking
        found.parts += bool(lacking)

    while (now := perf_counter() - began) < seconds:
        asked += [asyncio.create_task(ask()) for _ in range(int(2 * peak * now) - len(asked))]
        await asyncio.sleep(0.005)
    await asyncio.gather(*asked)
    took = perf_counter() - began
    after = [await _work(running, model) for model in (DETECTOR.format(count), CLASSIFIER)]
    spent = [(now[0] - then[0], now[1] - then[1]) for then, now in zip(before, after, strict=True)]
    each = [busy / max(1.0, items) for busy, items in spent]
    useful = found.whole * (each[0] + count * each[1])
    share = 1 - useful / max(1e-9, sum(busy for busy, _ in spent))
    rate = found.whole / took
    told = (
        f"overload, {count} objects, {2 * peak:.0f} pictures/s asked for {seconds:g} s",
        f"{rate:.1f} whole a second, {rate / peak:.2f} of the peak",
        f"{found.parts} lacked a part, {found.failed} were refused",
        f"{100 * share:.1f} % of the engine's time was for those",
    )
    print("\n" + "; ".join(told))


async def _work(running: Running, model: str) -> tuple[float, float]:
    """Seconds of the engine, and items."""
    url = _worker(running)
    busy = await sample(url, "shoal_worker_compute_seconds_sum", model=model)
    return busy, await sample(url, "shoal_worker_batch_size_sum", model=model)


def _worker(running: Running) -> str:
    found = state.running(running.home)
    url = next((part.metrics for part in found.parts if part.role == "worker"), None) if found else None
    if url is None:
        raise RuntimeError("the service has no worker")
    return url


if __name__ == "__main__":
    try:
        main()
    except ShoalError as error:
        raise SystemExit(str(error)) from None
