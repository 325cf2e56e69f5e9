"""What a profiled batch holds: random numbers, or pictures. Decoded once, before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import ConfigurationError, InvalidRequest
from shoal.service.spec import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig

    Fill = Callable[[NDArray[Any]], None]
    """Writes the rows of a slot, ``(n, *shape)``, in place."""


def fill_randomly(rows: NDArray[Any]) -> None:
    """Bytes of any value, normally distributed floats, and zeros and ones of every other type."""
    generator = np.random.default_rng(0)
    if rows.dtype == np.uint8:
        rows[:] = generator.integers(0, 256, rows.shape, np.uint8)
    elif np.issubdtype(rows.dtype, np.floating):
        rows[:] = generator.standard_normal(rows.shape, np.float32)
    else:
        rows[:] = generator.integers(0, 2, rows.shape)


def fill_with(pictures: NDArray[Any]) -> Fill:
    """Fills rows with ``pictures``, ``(n, *shape)``, in turn."""

    def fill(rows: NDArray[Any]) -> None:
        rows[:] = pictures[np.arange(len(rows)) % len(pictures)]

    return fill


def decode(config: ModelConfig, files: Sequence[Path]) -> NDArray[Any]:
    """The pictures as the worker would decode them for the model, ``(n, *config.input.shape)``.

    Raises:
        ConfigurationError: one can't be read, or the model takes no pictures.
    """
    from shoal.pictures.decode import Decoder  # random input needs no codecs

    limits = Pool()
    decoder = Decoder(config, max_pixels=limits.max_image_pixels, max_scans=limits.max_image_scans)
    rows = np.zeros((len(files), *config.input.shape), config.input.dtype)
    for row, file in zip(rows, files, strict=True):
        try:
            decoder.decode(file.read_bytes(), row)
        except (OSError, InvalidRequest) as error:
            raise ConfigurationError(f"--images: {file}: {error}") from error
    return rows
