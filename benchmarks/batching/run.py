"""Measures the batching service.

python -m benchmarks.batching.run [--quick] [--force] [--seconds S] [EXPERIMENT…]

Results go to benchmarks/results/batching_EXPERIMENT.json. An experiment that has a result of the present commit, with
the same windows, is not measured again unless it is --force'd: a run that was interrupted goes on where it was.
python -m benchmarks.batching.report brings docs/batching.md up to date.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmarks.batching import direct, low_load, measure_curve, neighbours, objective, overload, priority, spread
from benchmarks.batching.options import Options, read_result, result_file
from benchmarks.batching.tables import SHEETS
from benchmarks.common.about import about, use_cores
from benchmarks.common.files import write_json
from benchmarks.common.options import add_names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXPERIMENTS: dict[str, Callable[[Options], Awaitable[dict[str, Any]]]] = {
    "curve": measure_curve.measure,
    "low_load": low_load.measure,
    "overload": overload.measure,
    "spread": spread.measure,
    "objective": objective.measure,
    "priority": priority.measure,
    "neighbours": neighbours.measure,
    "direct": direct.measure,
}


def main() -> None:
    """Measures what is missing, prints and writes the results."""
    arguments = _arguments()
    use_cores()
    console = Console()
    options = Options(arguments.seconds, arguments.quick)
    for name in arguments.experiments:
        if arguments.force or not _is_done(name, options):
            _measure(name, options, Console(stderr=True))
        for sheet in SHEETS[name](read_result(name)):
            console.print(sheet.rich())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_names(parser, "experiment", EXPERIMENTS)
    parser.add_argument("--seconds", type=float, help="of each window, in place of the experiment's own")
    parser.add_argument("--quick", action="store_true", help="short windows and few points, to see that it works")
    parser.add_argument("--force", action="store_true", help="measure again what has a result")
    return parser.parse_args()


def _is_done(name: str, options: Options) -> bool:
    if not result_file(name).exists():
        return False
    result = read_result(name)
    return bool(result["commit"] == about()["commit"] and result["options"] == options.windows())


def _measure(name: str, options: Options, console: Console) -> None:
    began = time.monotonic()
    with console.status(name) as status:
        started = {**about(), "options": options.windows(), "load_average": round(os.getloadavg()[0], 2)}
        told = replace(options, say=lambda text: status.update(f"{name}: {text}"))
        result = asyncio.run(_run(name, told))
    result = {**started, "took_s": round(time.monotonic() - began, 1), **result}
    write_json(result_file(name), result)


async def _run(name: str, options: Options) -> dict[str, Any]:
    return await EXPERIMENTS[name](options)


if __name__ == "__main__":
    main()
