"""The client: decodes as Shoal's worker does, hands batches over in one of the ways, and counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import service_pb2 as v2

from benchmarks.common import cpu
from benchmarks.common.figures import Measurement
from benchmarks.transport import decoding
from benchmarks.transport.ways import (
    BATCH,
    CLASSES,
    CLIENT,
    JPEG,
    MEMORY,
    MESSAGE,
    NOBODY,
    NVJPEG,
    SHAPE,
    TAKE,
    TENSOR_BYTES,
    Messages,
    packed,
)
from shoal.engine.triton.shared_memory import Region

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.transport.ways import Cell
    from shoal.runtime.threads import Threads
    from shoal.triton.client import TritonClient

_MORE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a window, and of the load before it."""

    seconds: float
    warm_up: float


class Slot:
    """Memory for one batch, that the server knows."""

    def __init__(self) -> None:
        self.region = Region(BATCH * TENSOR_BYTES)
        self.pictures = np.frombuffer(self.region.memory, np.uint8).reshape(BATCH, *SHAPE)


class Sender:
    """Sends batches of a fixed set of pictures to one server."""

    def __init__(self, client: TritonClient, files: Iterator[bytes], threads: Threads, decoder: str) -> None:
        """``files``: endless."""
        self._client = client
        self._files = files
        self._threads = threads
        self._decode = decoding.make(decoder)
        self._slots: list[Slot] = []

    async def prepare(self, count: int) -> None:
        """Makes ``count`` slots, full of pictures, and registers them."""
        for _ in range(count):
            self._slots.append(slot := Slot())
            await self._client.register(slot.region.name, slot.region.size)
            await self._fill(slot, self._batch())

    async def close(self) -> None:
        """Lets go of the slots."""
        for slot in self._slots:
            slot.region.close()
        await self._client.unregister([slot.region.name for slot in self._slots])

    async def check(self, cell: Cell) -> float:
        """Sends one batch; of ``take`` the answer has to show the pictures that were sent.

        Returns:
            How far the answers are from what was expected, at most: nvJPEG's pixels are a little different.

        Raises:
            ValueError: they are others.
        """
        slot, files = self._slots[0], self._batch()
        await self._fill(slot, files)
        answer = await self._client.infer(self._request(cell, slot, files))
        found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(BATCH, CLASSES)
        if not np.isfinite(found).all():
            raise ValueError(f"{cell}: answered with what is no number")
        if cell.model != TAKE:
            return 0.0
        as_they_are = cell.way.carried == JPEG and cell.way.decodes == NOBODY
        expected = [len(file) for file in files] if as_they_are else slot.pictures[:, 112, 112, 0]
        error = float(np.abs(found[:, 0] - expected).max())
        if error and cell.way.decodes != NVJPEG:
            raise ValueError(f"{cell}: other pictures arrived than were sent (off by {error:g})")
        return error

    async def load(self, cell: Cell, server: int, pace: Pace) -> Measurement:
        """A closed loop of the cell's batches in flight; ``server`` is the number of its process."""
        window = _Window()
        calls = [asyncio.create_task(self._loop(cell, slot, window)) for slot in self._slots[: cell.in_flight]]
        try:
            await _running(calls, pace.warm_up)
            before = cpu.of_server(server)
            window.counting = True
            await _running(calls, pace.seconds)
            for _ in range(_MORE_SECONDS):  # a window without a single batch says nothing
                if window.seconds:
                    break
                await _running(calls, 1.0)
            after = cpu.of_server(server)
            window.counting = False
        finally:
            window.ended = True
            await asyncio.gather(*calls, return_exceptions=True)
        return Measurement(window.messages.batches * BATCH, cpu.spent(before, after), window.details())

    async def _loop(self, cell: Cell, slot: Slot, window: _Window) -> None:
        while not window.ended:
            started = perf_counter()
            files = self._batch()
            if cell.way.decodes == CLIENT:
                await self._fill(slot, files)
            request = self._request(cell, slot, files)
            answer = await self._client.infer(request)
            window.finished(started, request.ByteSize(), answer.ByteSize())

    async def _fill(self, slot: Slot, files: Sequence[bytes]) -> None:
        await asyncio.gather(
            *(self._threads.run(self._decode, file, row) for file, row in zip(files, slot.pictures, strict=True))
        )

    def _batch(self) -> list[bytes]:
        return list(islice(self._files, BATCH))

    def _request(self, cell: Cell, slot: Slot, files: Sequence[bytes]) -> Any:  # a protobuf message
        request = v2.ModelInferRequest(model_name=cell.model)
        request.outputs.add(name="logits")
        if cell.way.carried == JPEG:
            request.parameters["decode"].string_param = cell.way.decodes
            request.raw_input_contents.append(content := packed(files))
            request.inputs.add(name="jpegs", datatype="UINT8", shape=[len(content)])
            return request
        tensor = request.inputs.add(name="image", datatype="UINT8", shape=[BATCH, *SHAPE])
        if cell.way.carried == MESSAGE:
            request.raw_input_contents.append(slot.pictures.tobytes())
        else:
            assert cell.way.carried == MEMORY
            tensor.parameters["shared_memory_region"].string_param = slot.region.name
            tensor.parameters["shared_memory_byte_size"].int64_param = slot.region.size
        return request


@dataclass(slots=True)
class _Window:
    """What ends while it is open."""

    counting: bool = False
    ended: bool = False
    messages: Messages = field(default_factory=Messages)
    seconds: list[float] = field(default_factory=list)

    def finished(self, started: float, request: int, answer: int) -> None:
        if self.counting:
            self.seconds.append(perf_counter() - started)
            self.messages = self.messages.plus(request, answer)

    def details(self) -> dict[str, Any]:
        if not self.seconds:
            raise ValueError(f"no batch was answered within {_MORE_SECONDS} s")
        return {"p50_ms": round(1000 * median(self.seconds), 3), "messages": self.messages}


async def _running(calls: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Lets them run; raises what one of them raised."""
    done, _ = await asyncio.wait(calls, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for call in done:
        call.result()
