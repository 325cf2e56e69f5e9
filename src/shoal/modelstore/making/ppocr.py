"""PP-OCRv4's text detector, in ONNX as RapidOCR publishes it: the PyPI package ``rapidocr-onnxruntime``, Apache-2.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Resize, Task
from shoal.modelstore.making.recipe import Recipe
from shoal.runtime.download import Wheel, fetch, read_member

if TYPE_CHECKING:
    from pathlib import Path

NAME = "pp-ocrv4-det"

WHEEL = Wheel(
    package="rapidocr-onnxruntime",
    version="1.4.4",
    filename="rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
_MODEL = "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"


def prepare(cache: Path, name: str = NAME) -> tuple[onnx.ModelProto, Recipe]:
    """The model as published, float32 NCHW, and how it is fed."""
    return onnx.load_model_from_string(read_member(fetch(WHEEL, cache), _MODEL)), recipe(name)


def recipe(name: str = NAME) -> Recipe:
    """Normalisation and thresholds as in RapidOCR's own config.yaml; BGR, as it reads pictures with OpenCV."""
    return Recipe(
        name=name,
        task=Task.DETECTION,
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        channel_order="bgr",
        # RapidOCR's limit_side_len, and a multiple of 32 as the network wants. Letterboxed: stretching would
        # distort letters, and text runs to the picture's edge, so nothing may be cropped.
        size=(736, 736),
        resize=Resize.LETTERBOX,
        head="db",
        head_parameters={"binarize_threshold": 0.3, "box_threshold": 0.5, "unclip_ratio": 1.6},
        labels=("text",),
        # A picture is 1.6 MB and takes a core 0.1 s and more: larger batches would only add waiting.
        batching=BatchingSettings(
            max_batch_size=4, preferred_batch_size=(4,), max_queue_delay_microseconds=5000, instance_count=2
        ),
    )
