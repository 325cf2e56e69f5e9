"""What one GPU does without a service: the model alone, decoding alone, both; by the runner's own parts.

python -m benchmarks.gpu.ceilings NETWORK.pt PICTURES.npz RUNNER [--batch 64] [--seconds 3]

RUNNER is a version's folder of a model that `shoal model add --runner gpu` made. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gpu.settings import BATCH, FRAME, LANES, RUNNER, SIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IN_FLIGHT = 8
_WARM_UP_SECONDS = 1.0


class Runner:
    """The runner's modules, which live in a model's folder."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")  # as model.py does
        sys.path.insert(0, str(folder))
        self.rows = importlib.import_module("encoded_rows")
        self.batch = importlib.import_module("batch")
        self.lane = importlib.import_module("lane")
        self.network = importlib.import_module("network")
        self.pipeline = importlib.import_module("pipeline")
        self.preparing = importlib.import_module("preparing")
        self.memory = importlib.import_module("host_memory")

    def packed(self, tensor: Any) -> tuple[Any, Any]:
        """A tensor of ``encoded_rows`` and its table, in shared memory, as from Triton."""
        memory = mmap.mmap(-1, tensor.nbytes)
        content = np.frombuffer(memory, np.uint8).reshape(tensor.shape)
        content[:] = tensor
        return content.reshape(-1), self.rows.read(content, len(content), int(np.prod(FRAME)), FRAME[1::-1])


class Job:
    """One batch in flight, which is sent again once it is answered."""

    def __init__(self, batch: Callable[[], Any], again: Callable[[Job], None]) -> None:
        self._make, self._again = batch, again
        self.batch, self.decoded = batch(), 0.0

    def begin(self) -> None:
        """Its turn has come."""

    def answer(self, outputs: Mapping[str, Any], seconds: float) -> None:
        """Goes on."""
        del outputs, seconds
        self.batch = self._make()
        self._again(self)

    def fail(self, reason: str) -> None:
        """Ends the measurement."""
        raise SystemExit(reason)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("runner", type=Path)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with np.load(options.pictures) as archive:
        tensors = [archive[name] for name in archive]
    print(json.dumps(measure(Runner(options.runner), options.network, tensors, options.batch, options.seconds)))


def measure(runner: Runner, file: Path, tensors: list[Any], size: int, seconds: float) -> dict[str, Any]:
    """Images a second and CPU ms an image of each."""
    import torch

    torch.set_num_threads(1)
    unit = runner.preparing.unit_of(0)
    network = runner.network.Network(file, RUNNER, ["probabilities"], 0)
    outputs = {"probabilities": torch.float32}
    lanes = [runner.lane.Lane(network, size, FRAME, outputs, 0) for _ in range(LANES)]
    preparer = runner.preparing.Preparer(0, size, SIDE, SIDE, runner.memory.HostMemory(), unit)
    packed = [runner.packed(tensor) for tensor in tensors]
    number = count()

    def batch() -> Any:
        return runner.batch.Batch(*packed[next(number) % len(packed)], preparer.decoder)

    nothing = torch.cuda.Event()
    turn = count()
    for lane in lanes:
        lane.start(size, nothing)

    def model() -> None:
        lane = lanes[next(turn) % LANES]
        lane.wait()
        lane.start(size, nothing)

    def decode() -> None:
        preparer.prepare(batch(), lanes[0].frames)

    found = {"model": _rate(model, size, seconds), "decode": _rate(decode, size, seconds)}
    torch.cuda.synchronize()
    found["both"] = _together(runner, preparer, lanes, batch, size, seconds)
    return found


def _rate(step: Callable[[], None], size: int, seconds: float) -> dict[str, float]:
    for _ in range(2 * LANES):
        step()
    began, cpu, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return _figures(steps * size, time.perf_counter() - began, time.process_time() - cpu)


def _together(
    runner: Runner, preparer: Any, lanes: list[Any], batch: Callable[[], Any], size: int, seconds: float
) -> dict[str, float]:
    """Through the runner's pipeline, ``IN_FLIGHT`` batches at a time; headers are read by a thread, as in Triton's."""
    pipeline = runner.pipeline.Pipeline(preparer, lanes)
    done = 0

    def again(job: Job) -> None:
        nonlocal done
        done += 1
        pipeline.put(job)

    for _ in range(IN_FLIGHT):
        pipeline.put(Job(batch, again))
    time.sleep(_WARM_UP_SECONDS)
    began, cpu, before = time.perf_counter(), time.process_time(), done
    time.sleep(seconds)
    return _figures((done - before) * size, time.perf_counter() - began, time.process_time() - cpu)


def _figures(images: int, seconds: float, cpu: float) -> dict[str, float]:
    return {"images_per_s": round(images / seconds, 1), "cpu_ms_per_image": round(1000 * cpu / max(images, 1), 4)}


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # the pipeline's jobs send themselves again for ever
