"""Shared memory against tensors in messages against JPEGs in messages, on a real Triton: 7 minutes.

python -m benchmarks.transport.run [--quick] [--seconds 3] [--rounds 5] [--images samples] [--output FILE]
python -m benchmarks.transport.run --network resnet50 --server FOLDER --seconds 1.2 --rounds 3 --output FILE  # a GPU

Without --network EfficientNet-Lite0 runs through OpenVINO, on two cores that client and server share, and the result is
benchmarks/results/transport.json. With one of torchvision's networks it runs on a GPU, in lanes (gpu/lanes), with all
cores, and the result is transport_gpu.json; nvJPEG decodes there, too, if this torchvision has it. FOLDER holds the
content of the nvidia-pytriton wheel; without it the server that `shoal triton fetch` brought is used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from benchmarks.common.about import about, use_cores
from benchmarks.common.figures import spread, summary
from benchmarks.common.files import RESULTS, read_pictures, write_json
from benchmarks.common.options import add_images
from benchmarks.common.unpacked import use_unpacked
from benchmarks.transport import decoding
from benchmarks.transport.client import Pace, Sender
from benchmarks.transport.server import EFFICIENTNET, MODELS, Served, make_repository
from benchmarks.transport.ways import BATCH, IN_FLIGHT, ON_GPU, SHAPE, Messages, cells, moved, turns
from shoal.errors import ShoalError
from shoal.local.process import tail
from shoal.local.running_triton import running
from shoal.runtime.threads import Threads, usable_cores
from shoal.triton.client import TritonClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.common.figures import Measurement
    from benchmarks.transport.ways import Cell

LANES = Path(__file__).parents[1] / "gpu" / "lanes"
_MOST_THREADS = 16
QUICK = {"seconds": 0.4, "warm_up": 0.1, "rounds": 1}


def main() -> None:
    """Measures, and writes the result."""
    options = parser().parse_args()
    for name, value in QUICK.items() if options.quick else ():
        setattr(options, name, value)
    served = Served(options.network, decoding.best(), 0, options.lanes)
    output = options.output or RESULTS / ("transport_gpu.json" if served.on_gpu else "transport.json")
    files = read_pictures(options.images)
    if not served.on_gpu:
        use_cores()
    load_average = os.getloadavg()[0]
    served = Served(options.network, served.decoder, min(usable_cores(), _MOST_THREADS), options.lanes)
    with tempfile.TemporaryDirectory(prefix="shoal-transport-") as scratch:
        if options.server:
            use_unpacked(options.server, Path(scratch))
        measured = asyncio.run(measure(served, files, options, Path(scratch)))
    result = {
        **about(),
        "load_average": round(load_average, 2),
        "settings": {
            "network": served.network,
            "batch": BATCH,
            "shape": SHAPE,
            "seconds": options.seconds,
            "warm_up_seconds": options.warm_up,
            "rounds": options.rounds,
            "decoder": served.decoder,
            "decode_threads": served.threads,
            "pictures": len(files),
        },
        **measured,
    }
    write_json(output, result)
    print(output)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="half a second a cell: to see that it works")
    made.add_argument("--seconds", type=float, default=3.0)
    made.add_argument("--warm-up", type=float, default=0.5)
    made.add_argument("--rounds", type=int, default=5)
    add_images(made)
    made.add_argument("--network", default=EFFICIENTNET)
    made.add_argument("--server", type=Path)
    made.add_argument("--lanes", type=Path, default=LANES, help="the folder of lane.py")
    made.add_argument("--output", type=Path)
    return made


async def measure(served: Served, files: Sequence[bytes], options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All cells, in turns over the rounds."""
    every = cells(nvjpeg=served.on_gpu)
    threads = Threads(served.threads, "decode")
    rounds: dict[Cell, list[Measurement]] = defaultdict(list)
    async with running(make_repository(scratch, served), scratch, models=MODELS) as server:
        client = TritonClient(server.url)
        sender = Sender(client, cycle(files), threads, served.decoder)
        try:
            await sender.prepare(max(IN_FLIGHT))
            errors, failed = await _checked(sender, every)
            pace = Pace(options.seconds, options.warm_up)
            for cell in turns([cell for cell in every if str(cell) not in failed], options.rounds):
                one = await sender.load(cell, server.process.pid, pace)
                rounds[cell].append(one)
                print(_line(cell, one), flush=True)
        except Exception:
            print(tail(scratch / "triton.log"), flush=True)
            raise
        finally:
            await sender.close()
            await client.close()
            threads.close()
    jpeg_bytes = sum(map(len, files)) / len(files)
    return {
        "cells": [_row(cell, rounds[cell], jpeg_bytes, errors[str(cell)]) for cell in every if cell in rounds],
        "left_out": failed,
    }


async def _checked(sender: Sender, every: Sequence[Cell]) -> tuple[dict[str, float], dict[str, str]]:
    """How far each cell's answers are off, and the reasons of what can't be measured: there may be no nvJPEG."""
    errors, failed = {}, {}
    for cell in every:
        try:
            errors[str(cell)] = await sender.check(cell)
        except Exception as error:
            if cell.way != ON_GPU:
                raise
            failed[str(cell)] = _reason(error)
            print(f"{cell}: left out: {failed[str(cell)]}", flush=True)
    return errors, failed


def _reason(error: Exception) -> str:
    told = error.details() if isinstance(error, grpc.aio.AioRpcError) else None
    return (told or str(error)).strip().splitlines()[0]


def _row(cell: Cell, rounds: Sequence[Measurement], jpeg_bytes: float, error: float) -> dict[str, Any]:
    of_rounds = [one.details["messages"] for one in rounds]
    messages = Messages(*(sum(getattr(one, name) for one in of_rounds) for name in Messages.__dataclass_fields__))
    figures = summary(rounds)
    del figures["details"]
    return {
        "model": cell.model,
        "carried": cell.way.carried,
        "decodes": cell.way.decodes,
        "in_flight": cell.in_flight,
        **figures,
        "p50_ms": spread([one.details["p50_ms"] for one in rounds]),
        "bytes_per_image": moved(cell.way, messages, jpeg_bytes),
        "largest_error": error,
    }


def _line(cell: Cell, one: Measurement) -> str:
    return (
        f"{cell}: {one.images_per_s:,.0f} images/s, p50 {one.details['p50_ms']:.2f} ms, "
        f"CPU ms an image: client {one.cpu_ms('client'):.3f}, server {one.cpu_ms('server'):.3f}"
    )


if __name__ == "__main__":
    try:
        main()
    except ShoalError as error:
        raise SystemExit(str(error)) from None
