"""The same within a Triton alone: a Python model that calls detector and classifier; pictures come in the request.

Detectors and classifier are the files of Shoal's model store, with the same batches, waits and instances; the Python
backend runs them through OpenVINO, in processes.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc import service_pb2 as v2

from benchmarks.common import cpu
from benchmarks.common.python_models import add_model
from benchmarks.pipelines.models import (
    CLASSIFIER,
    CLASSIFIER_SIDE,
    DETECTOR,
    DETECTOR_SIDE,
    SCORE_THRESHOLD,
    add_models,
)
from benchmarks.pipelines.ways import Answer, Counts, Found
from shoal.errors import Unavailable
from shoal.local.process import tail
from shoal.local.running_triton import running
from shoal.triton.client import TritonClient
from support.metrics import sample
from support.tiny_models import COLOURS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.pipelines.scale import Scale
    from shoal.local.running_triton import Running

LOOK: Final = Path(__file__).parent / "look"
_MODEL: Final = "look-{}"


class WithinTriton:
    """Implements ``Way``."""

    def __init__(self, server: Running, client: TritonClient, pictures: Sequence[bytes], scale: Scale) -> None:
        self._server = server
        self._client = client
        self._pictures = pictures
        self._moved = 0
        self.choices = scale.instances
        self.instances = self.choices[0]
        """Which of the models is asked."""

    async def ask(self, number: int, count: int) -> Answer:
        """See ``Way``."""
        picture = self._pictures[number % len(self._pictures)]
        request = _request(picture, self.instances, count)
        answer = await self._client.infer(request)
        found = _read(answer)
        self._moved += len(picture) + tensor_bytes(len(found))
        return Answer(found, request.ByteSize())

    def snapshot(self) -> cpu.Snapshot:
        """See ``Way``."""
        return cpu.of_server(self._server.process.pid)

    async def counts(self) -> Counts:
        """See ``Way``; what moves is calculated."""
        rows = await sample(self._server.metrics, "nv_inference_count_total", model=CLASSIFIER)
        batches = await sample(self._server.metrics, "nv_inference_exec_count_total", model=CLASSIFIER)
        return Counts(rows, batches, self._moved)


@asynccontextmanager
async def within_triton(
    scratch: Path, counts: Sequence[int], pictures: Sequence[bytes], scale: Scale
) -> AsyncIterator[WithinTriton]:
    """Starts a server with models for ``counts`` boxes, and stops it."""
    repository = make_repository(scratch, counts, scale)
    models = tuple(folder.name for folder in repository.iterdir())
    try:
        async with running(repository, scratch, models=models) as server:
            client = TritonClient(server.url)
            try:
                yield WithinTriton(server, client, pictures, scale)
            finally:
                await client.close()
    except Unavailable as error:
        raise Unavailable(f"{error}\n{tail(scratch / 'triton.log')}") from error


def make_repository(scratch: Path, counts: Sequence[int], scale: Scale) -> Path:
    """Detectors, classifier, and one model that calls them for each number of instances."""
    scratch.mkdir()
    repository = scratch / "repository"
    add_models(repository, counts, scale.cores, runner="python")
    told = {
        "classifier": CLASSIFIER,
        "detector_side": DETECTOR_SIDE,
        "classifier_side": CLASSIFIER_SIDE,
        "score_threshold": SCORE_THRESHOLD,
    }
    plain = (LOOK / "config.pbtxt").read_text(encoding="utf-8")
    for instances in scale.instances:
        config = scratch / f"{instances}.pbtxt"
        config.write_text(f"{plain}instance_group {{ count: {instances} kind: KIND_CPU }}\n", encoding="utf-8")
        add_model(repository, _MODEL.format(instances), config, [LOOK / "model.py"], told)
    return repository


def tensor_bytes(boxes: int) -> int:
    """Of one picture's tensors that one process hands to another: its pixels for the detector, and the crops.

    Each is counted once; through the server to the model it is copied twice.
    """
    return 3 * (DETECTOR_SIDE**2 + boxes * CLASSIFIER_SIDE**2)


def _request(picture: bytes, instances: int, count: int) -> Any:  # a protobuf message
    request = v2.ModelInferRequest(model_name=_MODEL.format(instances))
    request.parameters["detector"].string_param = DETECTOR.format(count)
    request.inputs.add(name="picture", datatype="UINT8", shape=[len(picture)])
    request.raw_input_contents.append(picture)
    return request


def _read(answer: Any) -> list[Found]:  # a protobuf message
    types = {"FP32": np.float32, "INT32": np.int32}
    outputs = {
        output.name: np.frombuffer(raw, types[output.datatype]).reshape(output.shape).tolist()
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    rows = zip(outputs["boxes"], outputs["classes"], outputs["probabilities"], strict=True)
    return [Found(x, y, width, height, COLOURS[number], share) for (x, y, width, height), number, share in rows]
