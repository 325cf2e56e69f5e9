"""Warm-up samples: zeros, noise, or pictures as the model takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig
    from shoal.modelstore.triton_settings import Warmup

FOLDER = "warmup"
"""Triton reads ``input_data_file`` from this folder of the model."""
_MAX_PIXELS = 500_000_000
_MAX_SCANS = 1000


def files(warmup: Warmup, config: ModelConfig) -> dict[str, bytes]:
    """Name to content of what goes into the folder: each picture as one row of the model's input, C order.

    Raises:
        ConfigurationError: a picture can't be read, or what decodes it isn't installed.
    """
    pictures = [sample for sample in warmup.samples if isinstance(sample, Path)]
    return {name_of(picture): _decoded(picture, config) for picture in pictures}


def name_of(picture: Path) -> str:
    """The file that a picture becomes."""
    return f"{picture.name}.raw"


def _decoded(picture: Path, config: ModelConfig) -> bytes:
    try:
        from shoal.pictures.decode import Decoder  # the worker's extra, which the models' one lacks
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--warmup {picture}: decoding needs {error.name!r}: pip install 'shoal[worker]'"
        ) from error
    row = np.zeros(config.input.shape, config.input.dtype)
    try:
        Decoder(config, max_pixels=_MAX_PIXELS, max_scans=_MAX_SCANS).decode(picture.read_bytes(), row)
    except OSError as error:
        raise ConfigurationError(f"--warmup {picture}: can't be read: {error.strerror}") from error
    except InvalidRequest as error:
        raise ConfigurationError(f"--warmup {picture}: {error}") from error
    return row.tobytes()
