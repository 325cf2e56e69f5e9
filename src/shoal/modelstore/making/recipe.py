"""What a person has to say about a model file to serve it: how it is fed, how it is read and how it is run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Resize, ResizeFilter
from shoal.modelstore.triton_settings import TritonSettings

if TYPE_CHECKING:
    from shoal.modelconfig.model import Task, Tensor
    from shoal.modelstore.formats import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that `shoal model add` needs besides the file."""

    name: str
    task: Task
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What is subtracted from pixels in [0, 255], in the model's own channel order."""
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    """The graph gets ``(x - mean) / std``: by default pixels in [0, 1]."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """What the model was trained on; Shoal's pictures are RGB, and the graph turns them round."""
    size: tuple[int, int] | None = None
    """Height and width, where the model's own input leaves them open."""
    layout: Literal["nchw", "nhwc"] | None = None
    """Where the channels are, for an input that leaves that open, too. None: as the graph tells."""
    outputs: tuple[str, ...] = ()
    """Those of the graph's outputs to serve; empty: all of them."""
    resize: Resize = Resize.STRETCH
    resize_shorter_side: int = 0
    """For ``Resize.CROP``; 0: the input's longer side times 8 / 7, as 256 is to 224."""
    resize_filter: ResizeFilter = ResizeFilter.BILINEAR
    """What the model was trained with: EfficientNets and vision transformers mostly with bicubic."""
    head: str = ""
    """Empty: the task's usual one."""
    head_parameters: dict[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    runner: Runner | None = None
    """What runs it in Triton's Python backend, see ``runners``; None: the backend of its format runs it."""
    network_input: Tensor | None = None
    """What a network behind the GPU runner takes, where that isn't the frames: with mean and std, made on the GPU."""
    batching: BatchingSettings = field(default_factory=BatchingSettings)
    triton: TritonSettings = field(default_factory=TritonSettings)

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.mean)):
            raise ConfigurationError(f"mean {list(self.mean)} must be numbers")
        if not all(math.isfinite(number) and number > 0 for number in self.std):
            raise ConfigurationError(f"std {list(self.std)} must be positive numbers")
