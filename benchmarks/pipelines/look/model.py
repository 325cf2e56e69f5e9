"""Detect, crop, classify within Triton: a model of the Python backend that calls the others (business logic scripting).

It imports nothing of Shoal. After
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/bls.html: one request is one
picture; the models behind are called with ``async_exec``, and several instances, each a process, work side by side. All
crops of a picture are one request to the classifier, whose dynamic batcher joins it with those of other pictures. The
picture is decoded once; crops are resized out of it by Pillow's ``resize`` with a box, which copies nothing before.

Parameters in config.pbtxt: ``classifier``, ``detector_side``, ``classifier_side`` and ``score_threshold``. A request's
own parameter ``detector`` names the model that finds the boxes.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

Corners = tuple[int, int, int, int]
_USED = b"used_dltensor"


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameters."""
        told = {name: each["string_value"] for name, each in json.loads(args["model_config"])["parameters"].items()}
        self._classifier = told["classifier"]
        self._detector_side = int(told["detector_side"])
        self._classifier_side = int(told["classifier_side"])
        self._threshold = float(told["score_threshold"])

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Pictures that came together wait for their models together."""
        return list(await asyncio.gather(*map(self._answer, requests)))

    async def _answer(self, request: Any) -> Any:  # Triton's
        try:
            return pb_utils.InferenceResponse(await self._look(request))
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(repr(error)))

    async def _look(self, request: Any) -> list[Any]:
        jpeg = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "picture"))
        picture = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
        whole = [(0, 0, *picture.size)]
        detector = json.loads(request.parameters())["detector"]
        boxes, scores = await _call(detector, _cut(picture, whole, self._detector_side), ("boxes", "scores"))
        boxes, scores = self._chosen(boxes[0], scores[0])
        logits = np.empty((0, 1), np.float32)
        if len(boxes):
            crops = _cut(picture, _corners(boxes, picture.size), self._classifier_side)
            (logits,) = await _call(self._classifier, crops, ("logits",))
        classes, probabilities = _best(logits)
        found = {"boxes": boxes, "scores": scores, "classes": classes, "probabilities": probabilities}
        return [_tensor(name, value) for name, value in found.items()]

    def _chosen(self, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those whose score is high enough, highest first."""
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= self._threshold]
        return boxes[order], scores[order]


def _corners(boxes: np.ndarray, size: tuple[int, int]) -> list[Corners]:
    """Left, upper, right, lower, in whole pixels, of ``(n, 4)`` x, y, width, height in [0, 1]."""
    wide, high = size
    return [
        (round(x * wide), round(y * high), round((x + width) * wide), round((y + height) * high))
        for x, y, width, height in boxes.tolist()
    ]


def _cut(picture: Image.Image, corners: list[Corners], side: int) -> np.ndarray:
    """Parts of the picture, each resized as though it were one of its own: uint8 ``(n, side, side, 3)``."""
    rows = np.empty((len(corners), side, side, 3), np.uint8)
    for row, corner in zip(rows, corners, strict=True):
        row[:] = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box=corner))
    return rows


async def _call(model: str, pictures: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
    """What a model answers to a batch."""
    request = pb_utils.InferenceRequest(
        model_name=model, requested_output_names=list(outputs), inputs=[_tensor("image", pictures)]
    )
    response = await request.async_exec()
    if response.has_error():
        raise RuntimeError(response.error().message())
    # A view of the response's memory would outlive it.
    return [np.from_dlpack(pb_utils.get_output_tensor_by_name(response, name)).copy() for name in outputs]


def _best(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest class of each row, and its probability."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    return logits.argmax(axis=1).astype(np.int32), probabilities.max(axis=1, initial=0).astype(np.float32)


def _tensor(name: str, array: np.ndarray) -> Any:
    """``array`` as Triton's; why so: src/shoal/modelstore/making/runner.py."""
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _set_name(capsule, _USED)
    return tensor


_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
