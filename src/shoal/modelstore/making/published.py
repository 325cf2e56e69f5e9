"""The models that `shoal model add` knows by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.modelstore.making import efficientnet, ppocr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from shoal.modelstore.making.recipe import Recipe

PUBLISHED: dict[str, Callable[[Path], tuple[onnx.ModelProto, Recipe]]] = {
    efficientnet.NAME: efficientnet.prepare,
    ppocr.NAME: ppocr.prepare,
}
"""A name, and what fetches the weights through a cache folder and gives the model and its recipe."""
