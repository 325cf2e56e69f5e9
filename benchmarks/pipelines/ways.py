"""The same work, done in several ways: a detector's boxes are cut out of a picture and classified."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from PIL import Image

from benchmarks.common import cpu
from benchmarks.pipelines.models import CLASSIFIER, DETECTOR, PIPELINE
from shoal.local import state
from support.metrics import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.common.service import Running
    from shoal.client import AsyncClient, Box
    from shoal.client.results import Class

KEPT: Final = 400
"""Pictures that are stored before, for each worker: several times as many as its picture cache holds."""
_REQUEST_BYTES: Final = 110
"""Of a call: key, uuid and names."""


class Found(NamedTuple):
    """One box, and the likeliest class of what is in it."""

    x: float
    y: float
    width: float
    height: float
    label: str
    probability: float


class Answer(NamedTuple):
    """Of one picture."""

    found: list[Found]
    """In the detector's order."""
    sent_bytes: int
    """By the client."""


class Counts(NamedTuple):
    """Since the start of a service."""

    rows: float
    """That the classifier ran."""
    batches: float
    moved_bytes: float
    """From one process of the service to another."""


class Way(Protocol):
    """One way, ready to be asked."""

    async def ask(self, number: int, count: int) -> Answer:
        """Does a picture, the next one for each ``number``, with so many boxes.

        Raises:
            RuntimeError: a part has no answer.
        """
        ...

    def snapshot(self) -> cpu.Snapshot:
        """CPU seconds of all processes that take part, this one included."""
        ...

    async def counts(self) -> Counts:
        """What has come of all calls so far."""
        ...


class ThroughShoal:
    """What the ways through Shoal have in common."""

    def __init__(self, running: Running, client: AsyncClient, pictures: Sequence[bytes]) -> None:
        self._running = running
        self._client = client
        self._pictures = pictures

    def snapshot(self) -> cpu.Snapshot:
        """See ``Way``."""
        return cpu.of_service(self._running)

    async def counts(self) -> Counts:
        """See ``Way``; what moves is what workers fetch, and what batchers send on and get back."""
        references = [
            await total(self._running, "batcher", f"shoal_batcher_{way}_bytes_total") for way in ("request", "answer")
        ]
        batch = "shoal_worker_batch_size"
        rows = await total(self._running, "worker", f"{batch}_sum", model=CLASSIFIER)
        batches = await total(self._running, "worker", f"{batch}_count", model=CLASSIFIER)
        return Counts(rows, batches, sum(references) + await self._fetched_bytes())

    async def _fetched_bytes(self) -> float:
        """Of whole pictures: requests for one that come together share a fetch."""
        fetches = "shoal_worker_picture_cache_fetches_total"
        whole = [await total(self._running, "worker", fetches, outcome=outcome) for outcome in ("hit", "miss")]
        return sum(whole) * sum(map(len, self._pictures)) / len(self._pictures)


class Uploaded(ThroughShoal):
    """The pipeline; each picture is stored first."""

    async def ask(self, number: int, count: int) -> Answer:
        """See ``Way``."""
        picture = self._pictures[number % len(self._pictures)]
        return Answer(await self._analyze(picture, count), len(picture) + _REQUEST_BYTES)

    async def _analyze(self, picture: bytes | str, count: int) -> list[Found]:
        answer = await self._client.analyze(picture, PIPELINE.format(count))
        found = []
        for finding in answer.findings:
            (result,) = finding.results
            if result.error or not result.classes:
                raise RuntimeError(f"a part of the picture has no answer: {result}")
            found.append(_found(finding.box, result.classes[0]))
        return found


class Stored(Uploaded):
    """The pipeline; pictures are in the store, as with those who keep them there, and none is in a worker's cache."""

    def __init__(self, running: Running, client: AsyncClient, pictures: Sequence[bytes], uuids: Sequence[str]) -> None:
        """``uuids``: see ``store``."""
        super().__init__(running, client, pictures)
        self._uuids = uuids

    async def ask(self, number: int, count: int) -> Answer:
        """See ``Way``."""
        return Answer(await self._analyze(self._uuids[number % len(self._uuids)], count), _REQUEST_BYTES)


class ByHand(ThroughShoal):
    """As anybody would without a pipeline; the crops are cut in a thread."""

    async def ask(self, number: int, count: int) -> Answer:
        """See ``Way``."""
        picture = self._pictures[number % len(self._pictures)]
        boxes = (await self._client.detect(picture, DETECTOR.format(count))).boxes
        crops = await asyncio.to_thread(_cut, picture, boxes)
        told = await asyncio.gather(*(self._client.classify(crop, CLASSIFIER) for crop in crops))
        found = [_found(box, each.classes[0]) for box, each in zip(boxes, told, strict=True)]
        return Answer(found, len(picture) + sum(map(len, crops)) + _REQUEST_BYTES * (1 + len(crops)))


async def store(client: AsyncClient, pictures: Sequence[bytes], workers: int) -> list[str]:
    """Stores the pictures, in turns, so many times that no worker keeps them all; answers the uuids."""
    uuids: list[str] = []
    for first in range(0, KEPT * workers, 8):
        some = [pictures[number % len(pictures)] for number in range(first, first + 8)]
        uuids += map(str, await asyncio.gather(*map(client.upload, some)))
    return uuids


def differences(found: Sequence[Found], expected: Sequence[Found]) -> tuple[float, float]:
    """The most by which boxes, in [0, 1], and probabilities differ.

    Raises:
        ValueError: other boxes, or other labels.
    """
    if [each.label for each in found] != [each.label for each in expected]:
        raise ValueError(f"labels differ: {found} is not {expected}")
    pairs = list(zip(found, expected, strict=True))
    boxes = (abs(a - b) for one, other in pairs for a, b in zip(one[:4], other[:4], strict=True))
    probabilities = (abs(one.probability - other.probability) for one, other in pairs)
    return max(boxes, default=0.0), max(probabilities, default=0.0)


def _found(box: Box, best: Class) -> Found:
    return Found(box.x, box.y, box.width, box.height, best.label, best.probability)


def _cut(picture: bytes, boxes: Sequence[Box]) -> list[bytes]:
    decoded = Image.open(io.BytesIO(picture)).convert("RGB")
    width, height = decoded.size
    crops = []
    for box in boxes:
        corners = box.x * width, box.y * height, (box.x + box.width) * width, (box.y + box.height) * height
        buffer = io.BytesIO()
        decoded.crop(tuple(map(round, corners))).save(buffer, "JPEG", quality=90)  # type: ignore[arg-type]
        crops.append(buffer.getvalue())
    return crops


async def total(running: Running, role: str, name: str, **labels: str) -> float:
    """A sample's sum over all parts of a role."""
    found = state.running(running.home)
    urls = [part.metrics for part in found.parts if part.role == role and part.metrics] if found else []
    if not urls:
        raise RuntimeError(f"the service has no {role}")
    return sum([await sample(url, name, **labels) for url in urls])
