"""Measures what a batch costs on its way to a real Triton and back: in shared memory, and in messages.

python -m benchmarks.transport.memory [--batches 200]

The model does next to nothing, so that what is left is the way: 8 pictures of 224 x 224 x 3 bytes there; back either
1,000 numbers a picture (classes) or 540 x 960 of them (a map). Results: benchmarks/results/triton_memory.json.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from benchmarks.common import cpu
from benchmarks.common.about import about, use_cores
from benchmarks.common.figures import Measurement
from benchmarks.common.files import RESULTS, write_json
from shoal.engine.limits import row_bytes
from shoal.engine.triton.engine import TritonEngine
from shoal.local.running_triton import running
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, Task, Tensor
from shoal.modelstore.formats import Format, runtime
from shoal.modelstore.making.render import render
from shoal.service.spec import Service
from shoal.triton.client import TritonClient
from shoal.worker.store_source import StoreSource

if TYPE_CHECKING:
    from shoal.engine.triton.model import TritonModel
    from shoal.local.running_triton import Running

RESULT = RESULTS / "triton_memory.json"
SIZE = 224
BATCH = 8
OUTPUTS = {"classes": 1000, "map": 540 * 960}
WARM_UP = 20

# Answers zeros. Only as much of a picture is read as tells that it is there.
MODEL = """\
import ctypes
import numpy as np
import triton_python_backend_utils as pb_utils
set_name = ctypes.pythonapi.PyCapsule_SetName
set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(np.from_dlpack(pb_utils.get_input_tensor_by_name(each, "picture"))) for each in requests]
    def answer(self, pictures):
        numbers = np.zeros((len(pictures), {numbers}), np.float32)
        numbers[:, 0] = pictures[:, 0, 0, 0]
        capsule = numbers.__dlpack__()
        tensor = pb_utils.Tensor.from_dlpack("numbers", capsule)
        set_name(capsule, b"used_dltensor")
        return pb_utils.InferenceResponse([tensor])
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of the tensors."""

    output: str
    shares_memory: bool
    in_flight: int


def main() -> None:
    """Measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=200, help="of each way")
    batches = parser.parse_args().batches
    use_cores()
    rows = asyncio.run(measure(batches))
    write_json(RESULT, {"about": about(), "rows": rows})
    print(f"wrote {RESULT}")


async def measure(batches: int) -> list[dict[str, Any]]:
    """A row a way."""
    ways = [Way(output, shares, flight) for output in OUTPUTS for shares in (True, False) for flight in (1, 3)]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch, "models")
        for name, numbers in OUTPUTS.items():
            add(store, name, numbers)
        async with running(store, Path(scratch, "logs")) as triton:
            for way in ways:
                rows.append(await measure_way(way, store, triton, batches))
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def add(store: Path, name: str, numbers: int) -> None:
    """A model that answers ``numbers`` zeros a picture."""
    config = ModelConfig(
        name=name,
        version=1,
        path=store / name / "1" / "model.onnx",
        task=Task.CLASSIFICATION,
        input=Tensor("picture", "uint8", (SIZE, SIZE, 3)),
        outputs=(Tensor("numbers", "float32", (numbers,)),),
        batching=BatchingSettings(max_batch_size=BATCH, instance_count=2),
        head="softmax",
        resize=Resize.STRETCH,
    )
    config.path.parent.mkdir(parents=True)
    config.path.with_name("model.py").write_text(MODEL.replace("{numbers}", str(numbers)))
    # The store asks for a file to serve; Triton runs the other one.
    value = helper.make_tensor_value_info("picture", TensorProto.UINT8, [1])
    config.path.write_bytes(helper.make_model(helper.make_graph([], name, [value], [value])).SerializeToString())
    (store / name / "config.pbtxt").write_text(render(config, runtime=runtime(Format.ONNX, "python")))


async def measure_way(way: Way, store: Path, triton: Running, batches: int) -> dict[str, Any]:
    """Time and CPU of a batch."""
    source = StoreSource(store, Service(), "default")
    engine = TritonEngine(TritonClient(triton.url), source.describe, shares_memory=way.shares_memory)
    model = await engine.load(replace((await source.offers())[way.output].config))
    await send(model, WARM_UP, 1)
    before = cpu.of_server(triton.process.pid)
    seconds = await send(model, batches, way.in_flight)
    took = Measurement(len(seconds), cpu.spent(before, cpu.of_server(triton.process.pid)))
    row = {
        "output": way.output,
        "memory": "shared" if way.shares_memory else "messages",
        "in_flight": way.in_flight,
        "bytes_there": BATCH * row_bytes(model.config.input),
        "bytes_back": BATCH * row_bytes(model.config.outputs[0]),
        "median_ms": round(1e3 * median(seconds), 2),
        "batches_a_second": round(took.images_per_s, 1),
        "worker_cpu_ms": round(took.cpu_ms("client"), 2),
        "triton_cpu_ms": round(took.cpu_ms("server"), 2),
    }
    await engine.close()
    return row


async def send(model: TritonModel, batches: int, in_flight: int) -> list[float]:
    """The seconds of each batch."""
    seconds: list[float] = []

    async def one_by_one() -> None:
        for _ in range(batches // in_flight):
            slot = await model.acquire()
            began = time.perf_counter()
            await model.infer(slot, BATCH)
            seconds.append(time.perf_counter() - began)
            model.release(slot)

    await asyncio.gather(*(one_by_one() for _ in range(in_flight)))
    return seconds


if __name__ == "__main__":
    main()
