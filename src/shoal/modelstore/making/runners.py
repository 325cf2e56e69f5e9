"""What runs a model in Triton's Python backend: files that go beside it, which import nothing of Shoal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoal.engine.triton import encoded_rows
from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.modelstore.formats import Runner

MODEL_FILE: Final = "model.py"
"""What Triton's Python backend runs."""
GPU_FOLDER: Final = Path(__file__).with_name("gpu")
_NETWORKS: Final = ("uint8", "float16", "float32")


def files(runner: Runner) -> Mapping[str, Path]:
    """The names that ``runner`` has beside a model, and where its files are.

    Raises:
        ConfigurationError: this installation lacks the runner.
    """
    if runner == "python":
        return {MODEL_FILE: Path(__file__).with_name("runner.py")}
    kinds = {".py", ".cu"}
    found = {
        path.name: path for path in sorted(GPU_FOLDER.iterdir()) if path.suffix in kinds and path.stem != "__init__"
    }
    if MODEL_FILE not in found:
        raise ConfigurationError(f"--runner gpu: {GPU_FOLDER} has no {MODEL_FILE}; install shoal as a whole")
    return {**found, Path(encoded_rows.__file__).name: Path(encoded_rows.__file__)}


def frames(network: Tensor) -> Tensor:
    """What the GPU runner takes for a network: pictures as they are decoded.

    Raises:
        ConfigurationError: it takes no pictures.
    """
    shape = network.shape
    channels_first = len(shape) == 3 and shape[0] == 3
    sides = shape[1:] if channels_first else shape[:-1]
    if network.dtype not in _NETWORKS or len(shape) != 3 or 3 not in (shape[0], shape[2]) or min(sides) < 1:
        raise ConfigurationError(
            f"--input {network.name}:{network.dtype}:{'x'.join(map(str, shape))}: the GPU runner feeds "
            f"{', '.join(_NETWORKS)} of 3xHEIGHTxWIDTH or HEIGHTxWIDTHx3"
        )
    return Tensor(network.name, "uint8", (*sides, 3))
