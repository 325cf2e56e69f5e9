"""Decoders of one picture, for client and server alike; this file also lies beside the server's model.

``worker`` is that of Shoal's worker. Where simplejpeg is missing ``opencv`` takes its place: the same window, the same
DCT scale, OpenCV's decoder.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, Task, Tensor
from shoal.pictures.geometry import place
from shoal.pictures.read_header import read_header
from shoal.service.spec import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    Decode = Callable[[bytes, np.ndarray], Any]

SIDE, SHORTER_SIDE = 224, 256
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def best() -> str:
    """The decoder that this machine has."""
    return "worker" if find_spec("simplejpeg") else "opencv"


def make(name: str) -> Decode:
    """``decode(jpeg, out)``, for any number of threads; ``out`` is uint8 ``(224, 224, 3)``."""
    cv2.setNumThreads(1)
    return _worker() if name == "worker" else _opencv


def _worker() -> Decode:
    from shoal.pictures.decode import Decoder  # needs simplejpeg

    return Decoder(_CONFIG, max_pixels=Pool().max_image_pixels, max_scans=Pool().max_image_scans).decode


def _opencv(jpeg: bytes, out: np.ndarray) -> None:
    header = read_header(jpeg, max_pixels=Pool().max_image_pixels, max_scans=Pool().max_image_scans)
    window = place(_CONFIG, header.upright).window
    scale = next((scale for scale in _REDUCED if scale * SIDE <= min(window)), 1)
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), _REDUCED.get(scale, cv2.IMREAD_COLOR))
    assert picture is not None, "no JPEG"
    width, height = (max(1, round(side / scale)) for side in window)
    left, top = (picture.shape[1] - width) // 2, (picture.shape[0] - height) // 2
    seen = picture[max(top, 0) : top + height, max(left, 0) : left + width]
    method = cv2.INTER_AREA if min(seen.shape[:2]) > SIDE else cv2.INTER_LINEAR
    cv2.cvtColor(cv2.resize(seen, (SIDE, SIDE), interpolation=method), cv2.COLOR_BGR2RGB, dst=out)


_CONFIG = ModelConfig(
    name="transport",
    version=1,
    path=Path("model"),
    task=Task.CLASSIFICATION,
    input=Tensor("image", "uint8", (SIDE, SIDE, 3)),
    outputs=(Tensor("logits", "float32", (1000,)),),
    batching=BatchingSettings(),
    resize=Resize.CROP,
    resize_shorter_side=SHORTER_SIDE,
)
