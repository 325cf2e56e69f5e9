"""CPU microseconds that a picture costs a worker beside inference, of this tree and of another commit in turn.

python -m benchmarks.batching.worker_items --against COMMIT [--rounds 12] [--batch 32] [--streams 3] [--no-decoding]

The real service, batches, fetcher, decoder and head, in one process: pictures of 32 x 32 pixels in obstore's memory, an
engine that answers at once, and streams without gRPC, whose messages are read from bytes and written to bytes. Counted
is the CPU time of the event loop's thread, which carries all that is Python's; decoding threads aren't in it. ``rest``
leaves out what the same GETs cost alone. Runs alternate, so that other work on the machine falls on both; a ratio is
that of each pair.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
PICTURES, WARM_UP, OBJECTS, CLASSES = 16_000, 6_000, 256, 1000
MODEL, METHOD, SECRET = "m", "/shoal.v1.Inference/Classify", "s" * 32


def main() -> None:
    """Prints a line a round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="what this tree is compared with")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32, help="pictures in a batch, which come in one message")
    parser.add_argument("--streams", type=int, default=3, help="batches at once")
    parser.add_argument("--no-decoding", action="store_true", help="decoding threads do nothing, and so take no GIL")
    parser.add_argument("--role", choices=("worker",), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        print(json.dumps(uvloop.run(_measure(arguments.batch, arguments.streams, decodes=not arguments.no_decoding))))
    elif arguments.against:
        with tempfile.TemporaryDirectory() as folder:
            _compare(_unpacked(arguments.against, Path(folder)), arguments)
    else:
        parser.error("--against COMMIT is missing")


def _unpacked(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder / "src"


def _compare(other: Path, arguments: argparse.Namespace) -> None:
    sources = {"before": other, "after": ROOT / "src"}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    command = [sys.executable, __file__, "--role", "worker", "--batch", str(arguments.batch)]
    command += ["--streams", str(arguments.streams), *(["--no-decoding"] if arguments.no_decoding else [])]
    for number in range(arguments.rounds):
        for name in sorted(sources, reverse=bool(number % 2)):
            environment = {**os.environ, "PYTHONPATH": f"{sources[name]}{os.pathsep}{ROOT / 'tests'}"}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            found[name].append(json.loads(done.stdout))
        print({name: values[-1] for name, values in found.items()}, flush=True)
    for what in ("loop", "rest"):
        ratios = [after[what] / before[what] for before, after in zip(found["before"], found["after"], strict=True)]
        medians = {name: round(statistics.median(each[what] for each in values)) for name, values in found.items()}
        print(
            f"{what}: median {medians['before']} before, {medians['after']} after, in us of CPU a picture; "
            f"ratio {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}"
        )


@dataclass(eq=False)
class _Slot:
    input: Any

    def row(self, number: int) -> Any:
        return self.input[number]

    def move(self, before: int, now: int) -> None:
        if before != now:
            self.input[now] = self.input[before]


@dataclass(eq=False)
class _Engine:
    """Answers at once, with values that were drawn once."""

    config: Any
    outputs: Any
    trouble: str = ""
    slots: list[_Slot] = field(default_factory=list)

    async def acquire(self, *_: object) -> _Slot:
        import numpy as np

        tensor, most = self.config.input, self.config.batching.max_batch_size
        return self.slots.pop() if self.slots else _Slot(np.zeros((most, *tensor.shape), tensor.dtype))

    def release(self, slot: _Slot) -> None:
        self.slots.append(slot)

    async def infer(self, _: _Slot, size: int, __: int = 0) -> Any:
        from shoal.engine import Inference

        await asyncio.sleep(0)
        return Inference({"logits": self.outputs[:size].copy()}, 0.001)


class _Context:
    """A stream of batches: the next one comes with each permit, from bytes."""

    def __init__(self, chunks: Iterator[bytes], told: tuple[tuple[str, str], ...]) -> None:
        from shoal.batching.v1 import batching_pb2

        self._parse = batching_pb2.BatchChunk.FromString
        self._chunks, self._told = chunks, told
        self._given: asyncio.Queue[bytes | None] = asyncio.Queue()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._told

    async def send_initial_metadata(self, _: object) -> None:
        self._given.put_nowait(next(self._chunks, None))

    async def read(self) -> Any:
        data = await self._given.get()
        return None if data is None else self._parse(data)

    async def write(self, chunk: Any) -> None:
        chunk.SerializeToString()
        if any(result.code for result in chunk.results):
            raise SystemExit(f"a picture failed: {chunk.results[0].message}")
        if chunk.permit:
            self._given.put_nowait(next(self._chunks, None))

    async def abort(self, code: object, details: str, *_: object) -> None:
        raise SystemExit(f"{code}: {details}")


async def _measure(batch: int, streams: int, *, decodes: bool) -> dict[str, float]:
    """Microseconds of the event loop's thread a picture: in all, of the GETs alone, and what is left."""
    from obstore.store import MemoryStore

    from shoal.batching.service import BatchingService

    store = MemoryStore()
    names = await _fill(store)
    service = BatchingService()
    await service.put(MODEL, _handler(store, batch, decodes=decodes))
    loop = 0.0
    for pictures in (WARM_UP, PICTURES):
        contexts = _contexts(names, pictures, batch, streams)
        began = time.thread_time()
        await asyncio.gather(*(service.compute(None, context) for context in contexts))  # type: ignore[arg-type]
        loop = (time.thread_time() - began) / pictures * 1e6
    gets = await _gets(store, names, batch * streams)
    return {"loop": round(loop, 1), "gets": round(gets, 1), "rest": round(loop - gets, 1)}


async def _fill(store: Any) -> list[str]:
    """The uuids of the pictures in it."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    names = [str(uuid.uuid4()) for _ in range(OBJECTS)]
    for name in names:
        file = io.BytesIO()
        Image.fromarray(noise.integers(0, 255, (32, 32, 3), np.uint8)).save(file, "JPEG")
        await store.put_async(f"me/{name}.jpg", file.getvalue())
    return names


async def _gets(store: Any, names: list[str], concurrency: int) -> float:
    left = PICTURES

    async def getter() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await (await store.get_async(f"me/{names[left % OBJECTS]}.jpg")).bytes_async()

    began = time.thread_time()
    await asyncio.gather(*(getter() for _ in range(concurrency)))
    return (time.thread_time() - began) / PICTURES * 1e6


def _contexts(names: list[str], pictures: int, batch: int, streams: int) -> list[_Context]:
    from shoal.batching import wire

    told = ((wire.MODEL, MODEL), (wire.METHOD, METHOD), (wire.BATCHER, "bench"))
    rounds = pictures // (batch * streams)
    return [_Context(iter(list(_chunks(names, rounds, batch))), told) for _ in range(streams)]


def _chunks(names: list[str], rounds: int, batch: int) -> Iterator[bytes]:
    from shoal.batching.v1.batching_pb2 import BatchChunk, BatchItem
    from shoal.service.identity import Identity
    from shoal.v1.inference_pb2 import ImageRequest

    identity = Identity.of(_key()).write()
    for first in range(0, rounds * batch, batch):
        chunk = BatchChunk(last=True)
        for index in range(first, first + batch):
            request = ImageRequest(api_key=SECRET, image_uuid=names[index % OBJECTS], model_name=MODEL)
            chunk.items.append(
                BatchItem(
                    index=index,
                    request=request.SerializeToString(),
                    owner="k",
                    timeout_us=30_000_000,
                    queued_us=1_000,
                    identity=identity,
                )
            )
        yield chunk.SerializeToString()


def _key() -> Any:
    from shoal.service.api_keys import Key

    return Key(id="k", key=SECRET, owner="me")


def _handler(store: Any, batch: int, *, decodes: bool) -> Any:
    import numpy as np

    from shoal.explain.recent import Recent
    from shoal.pictures.decode import Decoder
    from shoal.runtime.threads import Threads
    from shoal.service.api_keys import KeyRing
    from shoal.worker.access import Access
    from shoal.worker.admission import Admission
    from shoal.worker.decoders.decoder_pool import DecoderPool, Limits
    from shoal.worker.decoding import Decoding
    from shoal.worker.fetch_picture import Fetcher
    from shoal.worker.handler import PictureHandler
    from shoal.worker.heads.head import make_head
    from shoal.worker.meter import Meter
    from shoal.worker.picture_model import PictureModel

    config = _config(batch)
    engine = _Engine(config, np.random.default_rng(0).normal(size=(batch, CLASSES)).astype(np.float32))
    head = make_head(config)
    decoder = Decoder(config, max_pixels=10**6, max_scans=10)
    if not decodes:
        decoder.decode_if_quick = _nothing  # type: ignore[method-assign, assignment]
    return PictureHandler(
        PictureModel(
            loaded=engine,  # type: ignore[arg-type]
            admission=Admission(config, head, Access(KeyRing([_key()])), Recent(10_000)),
            decoder=decoder,
            head=head,
            fetcher=Fetcher(store, concurrency=64, max_bytes=10**7, budget_bytes=10**9, timeout_seconds=10),
            decoding=Decoding(Threads(2, "decode"), DecoderPool(1, Limits(1, 2**20))),
            meter=Meter(MODEL),
        )
    )


def _nothing(_: object, outs: Sequence[Callable[[], Any]], *_more: object) -> Any:
    from shoal.pictures.header import PictureSize

    outs[0]()
    return PictureSize(32, 32), True


def _config(batch: int) -> Any:
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.modelconfig.model import ModelConfig, Task, Tensor

    return ModelConfig(
        name=MODEL,
        version=1,
        path=Path("m/1/model.onnx"),
        task=Task.CLASSIFICATION,
        input=Tensor("image", "uint8", (32, 32, 3)),
        outputs=(Tensor("logits", "float32", (CLASSES,)),),
        batching=BatchingSettings(max_batch_size=batch, instance_count=2),
        labels=tuple(f"class {number}" for number in range(CLASSES)),
        head="softmax",
    )


if __name__ == "__main__":
    main()
