"""Draws every dashboard from one run: little load, much, too much, watched by a real Prometheus.

Needs Debian's package ``prometheus``. Writes docs/images/dashboard-*.png.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common.files import IMAGES, ROOT, jpegs
from benchmarks.common.service import running, temporary_home
from benchmarks.observing.boards import boards
from benchmarks.observing.draw import draw
from benchmarks.observing.load import callers
from benchmarks.observing.prometheus import watching
from shoal.local.scrape import LOCAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.common.service import Running
    from benchmarks.observing.boards import Target
    from benchmarks.observing.prometheus import Prometheus, Series

MODEL = "efficientnet-lite0"
QUEUE = 48
PHASES = (("little", 2, 0.4), ("much", 20, 0.0), ("too much", 24 + 2 * QUEUE, 0.0))
"""The load: its name, callers, and seconds that each rests after an answer."""
SCRAPE_SECONDS = 1
RATE_WINDOW = "10s"
"""In place of ``$__rate_interval``: Grafana takes four scrapes at least, and the run is short."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each phase")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shoal-dashboards-") as folder, temporary_home(MODEL) as (home, _):
        file = Path(folder) / "shoal.yaml"
        file.write_text(f"models: {{{MODEL}: {{max_queue_size: {QUEUE}}}}}\n")
        with running(home, file) as service:
            asyncio.run(_run(service, Path(folder), 60 * options.minutes))


async def _run(service: Running, folder: Path, seconds: float) -> None:
    command = [sys.executable, "-m", "shoal", "render", "prometheus", "--output", str(folder)]
    command += ["--scrape-interval", str(SCRAPE_SECONDS)]
    subprocess.run(command, check=True, env={**os.environ, "SHOAL_HOME": str(service.home.root)})  # noqa: ASYNC221
    async with watching(folder / "prometheus.yml", folder / "data") as prometheus:
        phases = await _load(service, seconds)
        end = time.time()
        IMAGES.mkdir(parents=True, exist_ok=True)
        for board in boards(__rate_interval=RATE_WINDOW, service=LOCAL, model=MODEL, pool="default", pipeline=""):
            targets = [target for panel in board.panels for target in panel.targets]
            answers = await _ask(prometheus, targets, phases[0][1], end)
            if not any(answers.values()):  # there is nothing of its kind
                continue
            path = IMAGES / f"dashboard-{board.name}.png"
            draw(board, answers, phases, end, path)
            print(path.relative_to(ROOT))


async def _load(service: Running, seconds: float) -> list[tuple[str, float]]:
    """Runs the phases; answers when each began."""
    began = []
    async with service.client() as client:
        images = [await client.upload(sample) for sample in jpegs()]
        async with callers(client, MODEL, images) as load:
            for name, count, rest in PHASES:
                began.append((name, time.time()))
                await load.set(count, rest)
                await asyncio.sleep(seconds)
    return began


async def _ask(
    prometheus: Prometheus, targets: Sequence[Target], start: float, end: float
) -> dict[Target, list[Series]]:
    return {target: await prometheus.over(target.expr, start, end, SCRAPE_SECONDS) for target in targets}


if __name__ == "__main__":
    main()
