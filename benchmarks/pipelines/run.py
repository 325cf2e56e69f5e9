"""``python -m benchmarks.pipelines.run``: Analyze beside a client that detects, cuts, uploads crops and classifies.

Both ask one service in turns, eight pictures at a time, at 1, 5 and 30 objects a picture. Then ``overload``: twice the
pictures that the pipeline can do, each with a second's time. It prints Markdown, and has no report.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

from PIL import Image

from benchmarks.common import cpu, service
from benchmarks.common.files import read_pictures
from benchmarks.pipelines.models import CLASSIFIER, DETECTOR, add_models
from shoal.errors import ShoalError
from shoal.local import state
from shoal.runtime.percentile import percentile
from shoal.service.home import Home
from support.metrics import sample

if TYPE_CHECKING:
    from benchmarks.common.service import Running
    from shoal.client import AsyncClient, Box

COUNTS: Final = (1, 5, 30)
AT_ONCE: Final = 8
MAX_PICTURES: Final = 24
MANY_AT_ONCE: Final = 64
"""Enough for the most pictures a second."""
TICK_SECONDS: Final = 0.02
DEADLINE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 30.0
_REQUEST_BYTES: Final = 110
"""Of a call: key, uuid and names."""

Way = Callable[["AsyncClient", bytes, int], Awaitable[int]]
"""Does one picture; answers the bytes that it sent."""


@dataclass
class Window:
    """What came of some seconds."""

    seconds: list[float] = field(default_factory=list)
    sent_bytes: int = 0
    whole: int = 0
    """Pictures with all of their parts answered."""
    parts: int = 0
    failed: int = 0


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--objects", type=int, nargs="*", default=COUNTS, choices=COUNTS, help="a picture; none: overload"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        home = Home(Path(folder))
        add_models(home.models, COUNTS)
        file = home.root / "shoal.yaml"
        file.write_text(_service_file())
        with service.running(home, file) as running:
            asyncio.run(_measure(running, options.objects, options.seconds, options.rounds))


def _service_file() -> str:
    then = f"then: [{{model: {CLASSIFIER}}}]"
    lines = [
        f"  look-{n}: {{detect: {{model: {DETECTOR.format(n)}, max_boxes: 50}}, {then}, max_pictures: {MAX_PICTURES}}}"
        for n in COUNTS
    ]
    return "\n".join(["pipelines:", *lines, ""])


async def _measure(running: Running, counts: Sequence[int], seconds: float, rounds: int) -> None:
    pictures = read_pictures()
    print(
        "| objects | way | pictures/s | p50 ms | p99 ms | KiB sent a picture | mean batch | CPU ms a picture | others |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    async with running.client() as client:
        for count in counts:
            for number in range(rounds):
                for name, way in (("pipeline", _pipeline), ("client", _by_hand)):
                    await _turn(running, client, way, f"{count} | {name} {number}", pictures, count, seconds)
        await _overload(running, client, pictures, 5, seconds, rounds)


async def _turn(
    running: Running, client: AsyncClient, way: Way, name: str, pictures: list[bytes], count: int, seconds: float
) -> None:
    await _window(client, way, pictures, count, 1.0)
    batches, before = await _batches(running, CLASSIFIER), cpu.of_service(running)
    found = await _window(client, way, pictures, count, seconds)
    spent, after = cpu.spent(before, cpu.of_service(running)), await _batches(running, CLASSIFIER)
    done, took = len(found.seconds), sorted(found.seconds)
    rate = done / spent.seconds
    cells = [
        f"{rate:.1f}",
        f"{1000 * (percentile(took, 0.5) or 0):.0f}",
        f"{1000 * (percentile(took, 0.99) or 0):.0f}",
        f"{found.sent_bytes / done / 1024:.1f}",
        f"{(after[0] - batches[0]) / max(1.0, after[1] - batches[1]):.1f}",
        f"{1000 * sum(spent.components.values()) / done:.1f}",
        f"{spent.other_cores:.2f} cores",
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


async def _window(client: AsyncClient, way: Way, pictures: list[bytes], count: int, seconds: float) -> Window:
    """A closed loop: ``AT_ONCE`` pictures at a time."""
    found, ends = Window(), perf_counter() + seconds
    source = cycle(pictures)

    async def work() -> None:
        while (began := perf_counter()) < ends:
            found.sent_bytes += await way(client, next(source), count)
            found.seconds.append(perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return found


async def _pipeline(client: AsyncClient, picture: bytes, count: int) -> int:
    found = await client.analyze(picture, f"look-{count}")
    if any(result.error for finding in found.findings for result in finding.results) or len(found.findings) != count:
        raise RuntimeError(f"{count} boxes expected, each with its class: {found}")
    return len(picture) + _REQUEST_BYTES


async def _by_hand(client: AsyncClient, picture: bytes, count: int) -> int:
    """As anybody would without a pipeline; the crops are cut in a thread."""
    found = await client.detect(picture, DETECTOR.format(count))
    crops = await asyncio.to_thread(_cut, picture, found.boxes)
    await asyncio.gather(*(client.classify(crop, CLASSIFIER) for crop in crops))
    return len(picture) + sum(map(len, crops)) + _REQUEST_BYTES * (1 + len(crops))


def _cut(picture: bytes, boxes: tuple[Box, ...]) -> list[bytes]:
    decoded = Image.open(io.BytesIO(picture)).convert("RGB")
    width, height = decoded.size
    crops = []
    for box in boxes:
        corners = box.x * width, box.y * height, (box.x + box.width) * width, (box.y + box.height) * height
        buffer = io.BytesIO()
        decoded.crop(tuple(map(round, corners))).save(buffer, "JPEG", quality=90)  # type: ignore[arg-type]
        crops.append(buffer.getvalue())
    return crops


async def _overload(
    running: Running, client: AsyncClient, pictures: list[bytes], count: int, seconds: float, rounds: int
) -> None:
    """Twice the peak, in an open loop, each with ``DEADLINE_SECONDS``; pictures are uploaded before.

    The peak is without deadlines, so that none is refused. It is measured before and after, and the CPU by component
    beside both: refusing costs some, too.
    """
    uuids = cycle([await client.upload(picture) for picture in pictures])
    pipeline = f"look-{count}"

    async def ask(found: Window, seconds: float) -> None:
        try:
            answer = await client.analyze(next(uuids), pipeline, timeout_seconds=seconds)
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
    await _peak(ask, min(seconds, 2.0))
    loads = ["peak", *["twice", "peak"] * rounds]
    rates: list[float] = []
    told: list[_Overload] = []
    for load in loads:
        if load == "peak":
            measured = await _measured(running, count, _peak(ask, seconds))
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


async def _peak(ask: _Ask, seconds: float) -> Window:
    """A closed loop of more callers than the pipeline has room for."""
    found, ends = Window(), perf_counter() + seconds

    async def work() -> None:
        while perf_counter() < ends:
            await ask(found, PATIENCE_SECONDS)

    await asyncio.gather(*(work() for _ in range(MANY_AT_ONCE)))
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


async def _batches(running: Running, model: str) -> tuple[float, float]:
    """Items that ran, and batches."""
    url = _worker(running)
    name = "shoal_worker_batch_size"
    return await sample(url, f"{name}_sum", model=model), await sample(url, f"{name}_count", model=model)


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
    main()
