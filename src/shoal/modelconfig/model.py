"""What Shoal knows of a model: a validated view of its config.pbtxt."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.batching import BatchingSettings


class Task(StrEnum):
    """What a model answers, and so which method serves it."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"

    @property
    def method(self) -> str:
        """The RPC method of this task."""
        return {"classification": "Classify", "detection": "Detect", "segmentation": "Segment"}[self.value]


class Resize(StrEnum):
    """How a picture of any size becomes the model's input."""

    CROP = "crop"
    """The shorter side to ``resize_shorter_side``, then a centre crop."""
    STRETCH = "stretch"
    """Both sides to the input's, whatever the aspect."""
    LETTERBOX = "letterbox"
    """The longer side fits, at the upper left; the rest is zero."""


class ResizeFilter(StrEnum):
    """Pillow's filter, with its averaging where a side shrinks, that the model was trained with."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a model; ``shape`` is without the batch dimension, -1 where it varies."""

    name: str
    dtype: str
    """numpy's name: ``uint8``, ``float32``, …"""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One version of one model, ready to load."""

    name: str
    version: int
    path: Path
    """The model's file, such as ``<store>/<name>/<version>/model.onnx``."""
    task: Task
    input: Tensor
    """uint8 ``(H, W, 3)`` where the graph normalises, else float32 ``(3, H, W)``."""
    outputs: tuple[Tensor, ...]
    batching: BatchingSettings
    labels: tuple[str, ...] = ()
    resize: Resize = Resize.STRETCH
    resize_shorter_side: int = 0
    """For ``Resize.CROP``."""
    resize_filter: ResizeFilter = ResizeFilter.BILINEAR
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean of each channel, of values in [0, 255]. A float32 input gets ``(value - mean) / std``."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    head: str = ""
    """How the outputs are read; ``keys.HEADS`` has them all."""
    head_parameters: dict[str, float] = field(default_factory=dict)
    backend: str = "onnxruntime"
    """Triton's, for ``engine: triton``; ``python``: a ``model.py`` beside the model runs it."""
    encoded: bool = False
    """Whether it also takes JPEGs, and decodes them on its device: see ``engine.triton.encoded_rows``."""
    versions: tuple[int, ...] = field(default=(), compare=False)
    """All that version_policy serves, lowest first; a Triton loads them all, the embedded engine the highest."""

    @property
    def height(self) -> int:
        """The input's rows."""
        return self.input.shape[0] if self.channels_last else self.input.shape[1]

    @property
    def width(self) -> int:
        """The input's columns."""
        return self.input.shape[1] if self.channels_last else self.input.shape[2]

    @property
    def channels_last(self) -> bool:
        """NHWC rather than NCHW."""
        return self.input.shape[-1] == 3  # RGB
