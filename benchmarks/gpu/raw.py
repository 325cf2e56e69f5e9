"""The ceiling: lanes in one process, a thread each, without any server. Needs a CUDA GPU, torch and torchvision.

python -m benchmarks.gpu.raw RESULT.json --answers ANSWERS.npz

Pictures lie in memory that the GPU reads by itself. ``--answers`` keeps the logits of a few batches, to hold a server's
against.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.profile.grid import numbers
from shoal.profile.machine import this_machine
from shoal.profile.observer import Observer, Pace
from shoal.profile.records import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.profile.records import Round

NETWORK, BATCH = "resnet152", 8
ANSWERED = 4
"""Batches whose logits are kept."""


def main() -> None:
    """Measures each number of batches in flight, in rounds."""
    options = parser().parse_args()
    sys.path.insert(0, str(options.lanes))
    import lane  # needs torch

    in_flight = numbers("--concurrency", options.concurrency)
    lanes = lane.make_lanes(NETWORK, max(in_flight), BATCH)
    pictures = [lane.pinned(batch(number)) for number in range(max(in_flight))]
    if options.answers:
        np.savez(options.answers, *[answer(lanes[0], lane.pinned(batch(number))) for number in range(ANSWERED)])
    pace = Pace(options.duration, options.warm_up)
    cells = {
        n: Cell(instances=n, batch=BATCH, concurrency=n, duration_s=options.duration, input="random") for n in in_flight
    }
    for number in range(options.rounds):
        for n in in_flight[:: -1 if number % 2 else 1]:
            measured = load(lanes[:n], pictures, options.awake, pace)
            cells[n] = cells[n].model_copy(update={"rounds": (*cells[n].rounds, measured)})
            print(
                f"raw, {n} in flight: {measured.images_per_s:,.0f} images/s, p50 {measured.p50_ms:.2f} ms", flush=True
            )
    result = {"machine": this_machine().model_dump(mode="json"), "cells": [cell.figures() for cell in cells.values()]}
    options.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("result", type=Path)
    made.add_argument("--answers", type=Path)
    made.add_argument("--concurrency", default="1,2,4,8,16")
    made.add_argument("--duration", type=float, default=3.0)
    made.add_argument("--warm-up", type=float, default=5.0)
    made.add_argument("--rounds", type=int, default=2)
    made.add_argument("--awake", type=int, default=2)
    made.add_argument("--lanes", type=Path, default=Path(__file__).parent / "lanes")
    return made


def batch(seed: int) -> np.ndarray:
    """Pictures of noise, always the same for a seed."""
    return np.random.default_rng(seed).integers(0, 256, (BATCH, 224, 224, 3), np.uint8)


def answer(lane: Any, pictures: Any) -> np.ndarray:
    """The logits of one batch."""
    lane.start(pictures)
    return np.asarray(lane.wait(awake=True))


def load(lanes: Sequence[Any], pictures: Sequence[Any], awake: int, pace: Pace) -> Round:
    """A closed loop on each lane."""
    lock = threading.Lock()
    observer = Observer(perf_counter(), BATCH, len(lanes), pace)

    def call(lane: Any, mine: Any) -> None:
        while not observer.done:
            started = perf_counter()
            lane.start(mine)
            lane.wait(awake=len(lanes) <= awake)
            with lock:
                observer.finished(started, perf_counter())

    threads = [threading.Thread(target=call, args=each) for each in zip(lanes, pictures, strict=False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return observer.round()


if __name__ == "__main__":
    main()
