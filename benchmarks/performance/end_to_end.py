"""Measures the ceiling, Shoal, and Shoal with the upload counted: images a second, and CPU time by component.

python -m benchmarks.performance.end_to_end [--seconds 8] [--rounds 5] [--concurrency 48] [--model NAME] [--images DIR]
                                           [--precision f32|bf16] [--before TREE] [--output FILE]

All three use the same pictures and the same two cores, which the client shares. They take turns in rounds, and ratios
are taken within a round: whatever else a machine does slows neighbours alike. Results go to
benchmarks/results/end_to_end.json, unless ``--output`` says otherwise.

With ``--before`` the service of another checkout takes turns, too. Both have the same model: what the other can't read
of it, such as the filter of a resize, is left out. All else there is its own default. Where the CPU multiplies bf16,
commits that know no ``inference_precision`` use it, and compare with ``--precision bf16``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.common import cpu
from benchmarks.common.about import about, commit_of, use_cores
from benchmarks.common.ceiling import Ceiling, Work
from benchmarks.common.figures import Measurement, overhead, ratio, summary
from benchmarks.common.files import RESULTS, read_pictures, write_json
from benchmarks.common.load import run_window
from benchmarks.common.options import add_images, add_model
from benchmarks.common.service import running, temporary_home
from benchmarks.performance.console import end_to_end_table
from shoal.client.load.generator import LoadRequest, LoadSettings
from shoal.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.common.service import Running
    from shoal.client.results import Image
    from shoal.engine.openvino import Precision
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.home import Home

RESULT = RESULTS / "end_to_end.json"
OBJECTS = 256
"""Pictures in the store: so many that it isn't always the same file."""
WARM_UP_SECONDS = 1.5
TRIAL_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    seconds: float
    rounds: int
    concurrency: int
    model: str
    images: Path
    precision: Precision
    before: Path | None
    output: Path


def main() -> None:
    """Measures, prints and writes the results."""
    options = _options()
    use_cores()
    pictures = read_pictures(options.images)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as progress, ExitStack() as stack:
        ways = 5 if options.before else 3
        steps = progress.add_task("starting", total=ways * options.rounds + 1)

        def step(what: str) -> None:
            progress.update(steps, description=what, advance=1)

        home, model = stack.enter_context(temporary_home(options.model, options.before))
        loads = {"shoal": Load(stack.enter_context(running(home, _service(home, options))), model, options)}
        if options.before:
            other, _ = stack.enter_context(temporary_home(options.model, options.before))
            service = stack.enter_context(running(other, tree=options.before))
            loads["before"] = Load(service, model, options, streams=False)
        ceiling = stack.enter_context(Ceiling(_work(model, pictures, home.cache, options)))
        step("looking for the best ceiling")
        result = _measure(loads, ceiling, model, pictures, options, step)
    write_json(options.output, result)
    Console().print(end_to_end_table(result))


def _options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each window (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="3 or more tell noise from news (default 5)")
    parser.add_argument("--concurrency", type=int, default=48, help="callers of the closed loop (default 48)")
    add_model(parser)
    add_images(parser)
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="of service and ceiling (default f32)"
    )
    parser.add_argument("--before", type=Path, metavar="TREE", help="a checkout of another commit, to measure in turns")
    parser.add_argument("--output", type=Path, default=RESULT, help="default benchmarks/results/end_to_end.json")
    return Options(**vars(parser.parse_args()))


def _service(home: Home, options: Options) -> Path:
    """The service file of this tree's service."""
    file = home.root / "shoal.yaml"
    file.write_text(f"pools: {{default: {{inference_precision: {options.precision}}}}}\n", encoding="utf-8")
    return file


def _work(model: ModelConfig, pictures: Sequence[bytes], cache: Path, options: Options) -> Work:
    # The folder and the number of threads are those of a worker of the default service.
    return Work(model, pictures, cache / "openvino", len(os.sched_getaffinity(0)), options.precision)


def _measure(
    loads: Mapping[str, Load],
    ceiling: Ceiling,
    model: ModelConfig,
    pictures: Sequence[bytes],
    options: Options,
    step: Callable[[str], None],
) -> dict[str, Any]:
    started = about()
    trials = ceiling.choose(TRIAL_SECONDS)
    ways: dict[str, Callable[[], Measurement]] = {"ceiling": lambda: ceiling.measure(WARM_UP_SECONDS, options.seconds)}
    for name, load in loads.items():
        uploaded = asyncio.run(load.upload(list(islice(cycle(pictures), OBJECTS))))
        ways[name] = partial(_run, load, uploaded)
        ways[f"{name}_with_upload"] = partial(_run, load, pictures)
    rounds: dict[str, list[Measurement]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, measure in ways.items():
            step(f"round {number + 1}: {name.replace('_', ' ')}")
            rounds[name].append(measure())
    base = rounds["ceiling"]
    return {
        **started,
        "settings": {
            "seconds": options.seconds,
            "rounds": options.rounds,
            "concurrency": options.concurrency,
            "model": options.model,
            "precision": options.precision,
            "resize_filter": model.resize_filter.value,
            "pictures": len(pictures),
            "picture_bytes": [len(picture) for picture in pictures],
            "batch_size": model.batching.max_batch_size,
            "instances": model.batching.instance_count,
        },
        **({"before_commit": commit_of(options.before)} if options.before else {}),
        **{name: summary(of) for name, of in rounds.items()},
        "ceiling_pattern": {"chosen": str(ceiling.pattern), "images_per_s": trials},
        "ratio_to_ceiling": {name: ratio(of, base) for name, of in rounds.items() if name != "ceiling"},
        "overhead_cpu_ms_per_image": overhead(rounds["shoal"]),
        **({"before_overhead_cpu_ms_per_image": overhead(rounds["before"])} if options.before else {}),
    }


def _run(load: Load, images: Sequence[Image]) -> Measurement:
    return asyncio.run(load.run(images))


class Load:
    """The client: this process, in a closed loop."""

    def __init__(self, service: Running, model: ModelConfig, options: Options, *, streams: bool | None = None) -> None:
        """Prepares; ``streams`` is the client's. An older service answers none, and finding out takes 5 s."""
        self._service = service
        self._streams = streams
        self._model = model
        self._settings = LoadSettings(
            concurrency=options.concurrency, duration_seconds=options.seconds, warm_up_seconds=WARM_UP_SECONDS
        )

    async def upload(self, pictures: Sequence[bytes]) -> list[str]:
        """Puts pictures into the store; answers their uuids."""
        async with self._service.client() as client:
            return await client.upload_many(pictures)

    async def run(self, images: Sequence[Image]) -> Measurement:
        """One window; ``images`` that are bytes are uploaded with each request."""
        requests = [LoadRequest(self._model.task, image, self._model.name) for image in images]
        async with self._service.client(streams=self._streams) as client:
            await client.connect()
            result, spent = await run_window(client, requests, self._settings, partial(cpu.of_service, self._service))
        if result.failed.codes or not result.answered:
            raise Internal(
                f"requests failed, so nothing was measured: {dict(result.failed.codes) or 'no answer in time'}"
            )
        told = result.summary()
        return Measurement(
            result.answered,
            spent,
            {name: told[name] for name in ("latency_ms", "mean_batch_size", "stage_mean_us")},
        )


if __name__ == "__main__":
    main()
