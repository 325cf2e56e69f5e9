"""The work that every peer does for a picture: decode, infer, the five most probable classes."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from benchmarks.common.shown import ShownDecoder
from shoal.pictures.decode import Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from benchmarks.peers.servers.plan import Plan
    from shoal.modelconfig.model import ModelConfig

    Pixels = NDArray[np.uint8]

TOP = 5
MAX_PIXELS, MAX_SCANS = 2**27, 100
"""Far above any picture here: the limits of Shoal's decoder are not the subject."""


def make_decoder(name: str, model: ModelConfig) -> ShownDecoder | Decoder:
    """The decoder that is called ``name``: ``shown`` or ``shoal``."""
    if name == "shown":
        return ShownDecoder(model)
    return Decoder(model, max_pixels=MAX_PIXELS, max_scans=MAX_SCANS)


class Work:
    """Decoder and model of one process; ``streams`` threads may use it at once."""

    def __init__(self, plan: Plan) -> None:
        """Loads and warms the model, with the settings of Shoal's embedded engine but for the plan's choice."""
        self._shape = plan.model.input.shape
        self._decoder = make_decoder(plan.decoder, plan.model)
        compiled = _compile(plan)
        self._requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(plan.choice.streams):
            request = compiled.create_infer_request()
            request.infer(np.zeros((plan.choice.batch_size, *self._shape), np.uint8))
            self._requests.put(request)

    def decode(self, picture: bytes) -> Pixels:
        """uint8 ``(H, W, 3)``."""
        row = np.empty(self._shape, np.uint8)
        self._decoder.decode(picture, row)
        return row

    def infer(self, rows: Sequence[Pixels] | Pixels) -> list[dict[str, Any]]:
        """An answer for each row, ready for JSON."""
        request = self._requests.get()
        try:
            results = request.infer(np.asarray(rows), share_inputs=True)
            logits = np.array(results[0])
        finally:
            self._requests.put(request)
        return [answer(row, len(logits)) for row in logits]

    def classify(self, pictures: Sequence[Buffer]) -> list[dict[str, Any]]:
        """Decodes one after the other, then infers."""
        rows = np.empty((len(pictures), *self._shape), np.uint8)
        for picture, row in zip(pictures, rows, strict=True):
            self._decoder.decode(picture, row)
        return self.infer(rows)


def answer(logits: NDArray[np.floating], batch: int) -> dict[str, Any]:
    """The most probable classes, and the size of the batch."""
    best = np.argpartition(logits, -TOP)[-TOP:]
    best = best[logits[best].argsort()[::-1]]
    exponentials = np.exp(logits - logits[best[0]])
    shares = exponentials[best] / exponentials.sum()
    return {"classes": list(zip(best.tolist(), shares.tolist(), strict=True)), "batch": batch}


def _compile(plan: Plan) -> openvino.CompiledModel:
    core = openvino.Core()
    core.set_property({"CACHE_DIR": plan.cache})
    model = core.read_model(plan.model.path)
    batch = openvino.Dimension(1, plan.choice.batch_size)
    model.reshape({0: openvino.PartialShape([batch, *map(openvino.Dimension, plan.model.input.shape)])})
    settings = {
        "NUM_STREAMS": str(plan.choice.streams),
        "INFERENCE_NUM_THREADS": str(plan.choice.threads),
        "INFERENCE_PRECISION_HINT": plan.precision,
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)
