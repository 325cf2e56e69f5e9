"""From pictures in the store to labels at the client, on one machine with a GPU; and what the GPU does alone.

python -m benchmarks.gpu.end_to_end [--server FOLDER] [--pictures SET,…] [--decode WAY,…] [--calls stream,unary]
                                    [--workers 6] [--processes 4] [--concurrency 1024] [--seconds 4] [--rounds 2]
                                    [--network resnet50] [--output FILE]

Needs torch, torchvision, cuda-core and nvidia-nvjpeg, and no network. The ceilings and all ways are measured in each
round, and ratios are taken within a round. Results go to benchmarks/results/gpu_end_to_end.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import cpu
from benchmarks.common.about import about
from benchmarks.common.figures import Measurement, spread
from benchmarks.common.files import RESULTS, write_json
from benchmarks.common.service import running
from benchmarks.common.unpacked import use_unpacked
from benchmarks.gpu import photographs
from benchmarks.gpu.rows import tensors
from benchmarks.gpu.settings import BATCH, CLASSES, LANES, MEAN, SIDE, STD
from shoal.client.connection import find_connection
from shoal.client.load.fleet import LoadJob, run_job
from shoal.client.load.generator import LoadRequest, LoadSettings
from shoal.modelconfig.model import Task
from shoal.modelstore import repository
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.common.service import Running
    from shoal.client.load.tally import LoadResult

RESULT = RESULTS / "gpu_end_to_end.json"
MODEL = "network"
WARM_UP_SECONDS = 2.0
_ELSEWHERE = ("store", "client")
"""Components that would be on other machines."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    server: Path | None
    pictures: list[str]
    decode: list[str]
    calls: list[str]
    workers: int
    processes: int
    concurrency: int
    seconds: float
    rounds: int
    network: str
    output: Path


def main() -> None:
    """Measures, and writes what was found after each set of pictures."""
    options = _options()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-gpu-")))
        if options.server:
            use_unpacked(options.server, scratch)
        home = Home(scratch / "home")
        network = scratch / "network.pt"
        _python("benchmarks.gpu.network", options.network, network)
        _add(home, network)
        result = {**about(), "settings": _settings(options), "sets": {}}
        for name in options.pictures:
            result["sets"][name] = _measure(options, home, network, name, scratch)
            write_json(options.output, result)


def _settings(options: Options) -> dict[str, Any]:
    names = ("workers", "processes", "concurrency", "seconds", "rounds", "network")
    return {name: getattr(options, name) for name in names} | {"batch": BATCH, "lanes": LANES}


def _measure(options: Options, home: Home, network: Path, name: str, scratch: Path) -> dict[str, Any]:
    pictures = photographs.make(name)
    config = repository.read_model(home.models, MODEL)
    packed = scratch / f"{name}.npz"
    np.savez(packed, *tensors(config, pictures, BATCH))
    ways = [(decode, calls) for decode in options.decode for calls in options.calls]
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        ceilings = json.loads(_python("benchmarks.gpu.ceilings", network, packed, config.path.parent))
        rounds.setdefault("ceilings", []).append(ceilings)
        for decode, calls in ways:
            found = _way(options, home, pictures, decode, calls)
            found["over_model"] = round(found["images_per_s"] / ceilings["model"]["images_per_s"], 4)
            found["end_to_end_over_ceiling"] = round(found["images_per_s"] / ceilings["both"]["images_per_s"], 4)
            rounds.setdefault(f"{decode}_{calls}", []).append(found)
            print(name, decode, calls, found, file=sys.stderr)
    return {
        "bytes_per_picture": round(sum(map(len, pictures)) / len(pictures)),
        **rounds,
        "over_model": {
            way: spread([one["over_model"] for one in of]) for way, of in rounds.items() if way != "ceilings"
        },
    }


def _way(options: Options, home: Home, pictures: list[bytes], decode: str, calls: str) -> dict[str, Any]:
    file = home.root / "shoal.yaml"
    pool = {"engine": "triton", "worker_processes": options.workers, "decode": decode}
    file.write_text(json.dumps({"pools": {"default": pool}}), encoding="utf-8")  # JSON is YAML
    with running(home, file) as service:
        requests = asyncio.run(_uploaded(service, pictures))
        result, spent = _load(options, service, requests, streams=calls == "stream")
    measured = Measurement(result.answered, spent)
    components = {name: round(measured.cpu_ms(name), 4) for name in spent.components}
    components["client"] = round(1000 * result.cpu_seconds / max(result.answered, 1), 4)
    here = sum(value for name, value in components.items() if name not in _ELSEWHERE)
    used = sum(components.values())
    told = result.summary()
    return {
        "images_per_s": round(result.images_per_s, 1),
        "cpu_ms_per_image": components,
        "cores_used": round(used * result.images_per_s / 1000, 2),
        "computed_images_per_s_with_store_and_client_elsewhere": round(result.images_per_s * used / here, 1),
        "errors": dict(result.errors),
        **{name: told[name] for name in ("latency_ms", "mean_batch_size", "stage_mean_us")},
    }


async def _uploaded(service: Running, pictures: list[bytes]) -> tuple[LoadRequest, ...]:
    async with service.client() as client:
        uuids = await client.upload_many(pictures)
    return tuple(LoadRequest(Task.CLASSIFICATION, uuid, MODEL) for uuid in uuids)


def _load(
    options: Options, service: Running, requests: tuple[LoadRequest, ...], *, streams: bool
) -> tuple[LoadResult, cpu.Spent]:
    settings = LoadSettings(options.concurrency, duration_seconds=options.seconds, warm_up_seconds=WARM_UP_SECONDS)
    job = LoadJob(find_connection(None, None, service.home), requests, settings, streams=streams)
    snapshots: list[cpu.Snapshot] = []
    with _sampled(service, settings, snapshots) as advance:
        result = run_job(job, options.processes, advance)
    return result, cpu.spent(*snapshots)


@contextmanager
def _sampled(service: Running, settings: LoadSettings, snapshots: list[cpu.Snapshot]) -> Iterator[Any]:
    """Takes snapshots at both ends of the window; yields what is to be told of the load's progress."""
    begun = threading.Event()
    timers = [
        threading.Timer(after, lambda: snapshots.append(cpu.of_service(service)))
        for after in (settings.warm_up_seconds, settings.warm_up_seconds + settings.duration_seconds)
    ]

    def advance(_: float) -> None:
        if not begun.is_set():
            begun.set()
            for timer in timers:
                timer.start()

    yield advance
    for timer in timers:
        timer.join()


def _add(home: Home, network: Path) -> None:
    options = {
        "--name": MODEL,
        "--task": "classification",
        "--runner": "gpu",
        "--head": "probabilities",
        "--input": f"image:float16:3x{SIDE}x{SIDE}",
        "--output": f"probabilities:float32:{CLASSES}",
        "--mean": ",".join(map(str, MEAN)),
        "--std": ",".join(map(str, STD)),
        "--resize": "crop",
        "--resize-shorter-side": "256",
        "--max-batch-size": str(BATCH),
        "--instances": str(LANES),
        "--store": str(home.models),
    }
    command = [
        sys.executable,
        "-m",
        "shoal",
        "model",
        "add",
        str(network),
        *(word for pair in options.items() for word in pair),
    ]
    subprocess.run(command, check=True)


def _python(module: str, *arguments: object) -> str:
    """In a process of its own, so that nothing of it stays on the GPU."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def _options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731 - of an option
    parser.add_argument(
        "--server", type=Path, help="the content of the nvidia-pytriton wheel, where none can be fetched"
    )
    parser.add_argument("--pictures", type=words, default=list(photographs.COUNTS))
    parser.add_argument("--decode", type=words, default=["gpu", "cpu", "auto"])
    parser.add_argument("--calls", type=words, default=["stream", "unary"])
    parser.add_argument("--workers", type=int, default=6, help="worker processes beside the one Triton (default 6)")
    parser.add_argument("--processes", type=int, default=4, help="of the load generator (default 4)")
    parser.add_argument("--concurrency", type=int, default=1024, help="requests in flight (default 1024)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window (default 4)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--network", default="resnet50", help="of torchvision (default resnet50)")
    parser.add_argument("--output", type=Path, default=RESULT)
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
