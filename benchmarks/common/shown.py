"""The decoder that the documentation of all four peers shows: Pillow, and torchvision's transforms of a Pillow image.

- mosec: https://mosecorg.github.io/mosec/examples/pytorch.html#computer-vision
- Ray Serve: https://docs.ray.io/en/latest/serve/tutorials/serve-ml-models.html and its ``doc_code/resnet50_example.py``
- LitServe: https://lightning.ai/docs/litserve/speed-up-serving-by-200x
- Triton: https://github.com/triton-inference-server/python_backend/tree/main/examples/preprocessing

Each opens the bytes with ``Image.open``, resizes the shorter side, crops the centre and normalises. torchvision resizes
a Pillow image with Pillow's own filters, so that torch isn't needed here; the normalisation is inside the model.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.modelconfig.model import ModelConfig


class ShownDecoder:
    """Any number of threads may use it at once."""

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that crops and takes uint8 ``(H, W, 3)``."""
        self._shorter = config.resize_shorter_side
        self._size = (config.width, config.height)
        self._filter = Image.Resampling[config.resize_filter.name]

    def decode(self, data: Buffer, out: NDArray[Any]) -> None:
        """Decodes one picture into ``out``, uint8 ``(H, W, 3)``."""
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
        # torchvision: the longer side is rounded down, the crop's corner to the nearest.
        whole = tuple(self._shorter * side // min(picture.size) for side in picture.size)
        left, top = (round((side - kept) / 2) for side, kept in zip(whole, self._size, strict=True))
        small = picture.resize((whole[0], whole[1]), self._filter)
        np.copyto(out, np.asarray(small.crop((left, top, left + self._size[0], top + self._size[1]))))
