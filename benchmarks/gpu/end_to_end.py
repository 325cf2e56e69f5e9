"""From pictures in the store to labels at the client, on one machine with a GPU; and what the GPU does alone.

python -m benchmarks.gpu.end_to_end [--server FOLDER] [--pictures SET,…] [--decode WAY,…] [--calls stream,unary]
                                    [--workers 6] [--processes 4] [--concurrency 1024] [--seconds 4] [--rounds 2]
                                    [--networks resnet50 | resnet50=0.9,resnet152=0.1] [--batch 64] [--gpus 1]
                                    [--output FILE]

Needs torch, torchvision, cuda-core and nvidia-nvjpeg, and no network. The ceilings and all ways are measured in each
round, and ratios are taken within a round. With several networks, requests for them come in the shares given, and the
ceiling is that of a GPU that shares its time so; they decode on it if MPS is on. A network's name with -compiled
behind it is compiled ahead of time.
Results go to benchmarks/results/gpu_end_to_end.json, beside the sets that are there.
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
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import cpu
from benchmarks.common.about import about
from benchmarks.common.figures import Measurement
from benchmarks.common.files import RESULTS, write_json
from benchmarks.common.service import running
from benchmarks.common.unpacked import use_unpacked
from benchmarks.gpu import photographs
from benchmarks.gpu.rows import tensors
from benchmarks.gpu.settings import BATCH, CLASSES, LANES, MEAN, SIDE, STD, suffix
from shoal.client.connection import find_connection
from shoal.client.load.fleet import LoadJob, run_job
from shoal.client.load.generator import LoadRequest, LoadSettings
from shoal.modelconfig.model import Task
from shoal.modelstore import repository
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.common.service import Running
    from shoal.client.load.tally import LoadResult

RESULT = RESULTS / "gpu_end_to_end.json"
NETWORK = "resnet50"
WARM_UP_SECONDS = 2.0
_REQUESTS = 4096
"""That are sent in turn, over and over."""
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
    networks: Mapping[str, float]
    """Names of torchvision's to the share of the requests that each gets."""
    batch: int
    gpus: int
    """Each with a Triton of its own."""
    output: Path

    def label(self, pictures: str) -> str:
        """Names a set of results."""
        words = [pictures]
        if self.networks != {NETWORK: 1.0}:
            words.append(
                " and ".join(
                    name if share == 1 else f"{name} {100 * share:.0f} %" for name, share in self.networks.items()
                )
            )
        if self.batch != BATCH:
            words.append(f"batches of {self.batch}")
        if self.gpus > 1:
            words.append(f"{self.gpus} GPUs")
        return ", ".join(words)


def main() -> None:
    """Measures, and writes what was found after each set of pictures."""
    options = _options()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-gpu-")))
        if options.server:
            use_unpacked(options.server, scratch)
        home = Home(scratch / "home")
        networks = {name: scratch / f"{name}{suffix(name)}" for name in options.networks}
        for name, file in networks.items():
            _python("benchmarks.gpu.network", name, file)
            add_network(home, name, file, options.batch)
        result = json.loads(options.output.read_text("utf-8")) if options.output.exists() else {"sets": {}}
        for name in options.pictures:
            measured = {**about(), **_measure(options, home, networks, name, scratch)}
            result["sets"][options.label(name)] = measured
            write_json(options.output, result)


def _settings(options: Options) -> dict[str, Any]:
    names = ("workers", "processes", "concurrency", "seconds", "rounds", "networks", "batch", "gpus")
    return {name: getattr(options, name) for name in names} | {"lanes": LANES}


def _measure(options: Options, home: Home, networks: Mapping[str, Path], name: str, scratch: Path) -> dict[str, Any]:
    pictures = photographs.make(name)
    ways = [(decode, calls) for decode in options.decode for calls in options.calls]
    rounds: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        ceilings = _ceilings(options, home, networks, pictures, scratch)
        rounds.setdefault("ceilings", []).append(ceilings)
        for decode, calls in ways:
            found = _way(options, home, pictures, decode, calls)
            found["over_model"] = round(found["images_per_s"] / ceilings["model"]["images_per_s"], 4)
            found["end_to_end_over_ceiling"] = round(found["images_per_s"] / ceilings["both"]["images_per_s"], 4)
            rounds.setdefault(f"{decode}_{calls}", []).append(found)
            print(options.label(name), decode, calls, found, file=sys.stderr)
    return {
        "settings": _settings(options),
        "bytes_per_picture": round(sum(map(len, pictures)) / len(pictures)),
        "ways": {way: of for way, of in rounds.items() if way != "ceilings"},
        "ceilings": rounds["ceilings"],
    }


def _ceilings(
    options: Options, home: Home, networks: Mapping[str, Path], pictures: list[bytes], scratch: Path
) -> dict[str, dict[str, float]]:
    """Of all GPUs, of which one is measured; of several networks the mean, weighted by the time that each takes."""
    found = {}
    for name, file in networks.items():
        config = repository.read_model(home.models, name)
        packed = scratch / "packed.npz"
        np.savez(packed, *tensors(config, pictures, options.batch))
        told = _python("benchmarks.gpu.ceilings", file, packed, config.path.parent, "--batch", options.batch)
        found[name] = json.loads(told)
    ceilings = {}
    for what in ("model", "decode", "both"):
        parts = [(share, found[name][what]) for name, share in options.networks.items()]
        seconds = sum(share / part["images_per_s"] for share, part in parts)
        spent = sum(share * part["cpu_ms_per_image"] for share, part in parts)
        ceilings[what] = {"images_per_s": round(options.gpus / seconds, 1), "cpu_ms_per_image": round(spent, 4)}
    return ceilings


def _way(options: Options, home: Home, pictures: list[bytes], decode: str, calls: str) -> dict[str, Any]:
    file = home.root / "shoal.yaml"
    pool = {
        "engine": "triton",
        "replicas": options.gpus,
        "worker_processes": options.workers,
        "decode": decode,
    }
    file.write_text(json.dumps({"pools": {"default": pool}}), encoding="utf-8")  # JSON is YAML
    with running(home, file) as service:
        requests = upload(service, pictures, options.networks)
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
        "errors": dict(result.failed.codes),
        **{name: told[name] for name in ("latency_ms", "mean_batch_size", "stage_mean_us")},
    }


def upload(service: Running, pictures: list[bytes], networks: Mapping[str, float]) -> tuple[LoadRequest, ...]:
    """Requests in turn: networks are drawn by their shares, always in the same order."""
    uuids = asyncio.run(_uploaded(service, pictures))
    random = np.random.default_rng(0)
    drawn = random.choice(list(networks), _REQUESTS, p=list(networks.values()))
    return tuple(
        LoadRequest(Task.CLASSIFICATION, uuid, str(name)) for name, uuid in zip(drawn, cycle(uuids), strict=False)
    )


async def _uploaded(service: Running, pictures: list[bytes]) -> list[str]:
    async with service.client() as client:
        return await client.upload_many(pictures)


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


def add_network(home: Home, name: str, network: Path, batch: int) -> None:
    """Puts a network into the home's store, with the GPU's runner."""
    options = {
        "--name": name,
        "--task": "classification",
        "--runner": "gpu",
        "--head": "probabilities",
        "--input": f"image:float16:3x{SIDE}x{SIDE}",
        "--output": f"probabilities:float32:{CLASSES}",
        "--mean": ",".join(map(str, MEAN)),
        "--std": ",".join(map(str, STD)),
        "--resize": "crop",
        "--resize-shorter-side": "256",
        "--max-batch-size": str(batch),
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


def _shares(text: str) -> dict[str, float]:
    pairs = (word.partition("=") for word in text.split(","))
    return {name: float(share or 1) for name, _, share in pairs}


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
    parser.add_argument(
        "--networks", type=_shares, default={NETWORK: 1.0}, help="of torchvision, each with its share of the requests"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help=f"largest batch (default {BATCH})")
    parser.add_argument("--gpus", type=int, default=1, help="Tritons, each with a GPU of its own (default 1)")
    parser.add_argument("--output", type=Path, default=RESULT)
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
