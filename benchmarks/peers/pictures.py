"""The pictures: made from the samples, the same in every run.

Each is a part of a sample, sometimes mirrored, enlarged (Lanczos) and given back the detail that enlarging lacks: noise
of several octaves, coarse as texture and fine as a sensor's. Its JPEG quality is the one whose file comes nearest to
the size wanted: 70 kB for a small picture, 4 MB for 12 megapixels.

python -m benchmarks.peers.pictures small|12mp FOLDER     # writes them
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

SAMPLES = {"chelsea": (281, 282, 285), "coffee": (967,)}
"""Names of the samples, to the ImageNet classes that are right for them: tabby, tiger cat or Egyptian cat; espresso."""


class Size(StrEnum):
    """Which pictures."""

    SMALL = "small"
    LARGE = "12mp"


class Picture(NamedTuple):
    """A JPEG, and the classes that are right for it."""

    data: bytes
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the pictures of one size are made."""

    width: int
    height: int
    file_bytes: int
    count: int
    octaves: tuple[tuple[int, float], ...]
    """Noise: its grain in pixels, and its standard deviation."""


RECIPES = {
    Size.SMALL: Recipe(640, 427, 70_000, 16, ((1, 3.0), (2, 4.0), (4, 4.0))),
    Size.LARGE: Recipe(4000, 3000, 4_000_000, 6, ((1, 3.0), (2, 5.0), (4, 6.0), (8, 6.0), (16, 6.0))),
}
_LEAST_PART = 0.85
"""Of a sample's sides; its subject stays in view."""
_QUALITIES = (40, 98)


def make(size: Size, samples: Path) -> list[Picture]:
    """All pictures of one size."""
    recipe = RECIPES[size]
    sources = [(_read(samples / f"{name}.jpg"), classes) for name, classes in SAMPLES.items()]
    pictures = []
    for number in range(recipe.count):
        source, classes = sources[number % len(sources)]
        random = np.random.default_rng([number, recipe.width])
        pictures.append(Picture(encode(_with_detail(_part(source, recipe, random), recipe, random), recipe), classes))
    return pictures


def _read(path: Path) -> Pixels:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ConfigurationError(f"{path}: not a picture")
    return picture.astype(np.uint8, copy=False)


def _part(source: Pixels, recipe: Recipe, random: np.random.Generator) -> Pixels:
    height, width = source.shape[:2]
    most = min(width / recipe.width, height / recipe.height) * random.uniform(_LEAST_PART, 1)
    size = (int(recipe.width * most), int(recipe.height * most))
    left, top = (int(random.integers(0, whole - kept + 1)) for whole, kept in zip((width, height), size, strict=True))
    part = source[top : top + size[1], left : left + size[0]]
    if random.integers(2):
        part = part[:, ::-1]
    enlarged = cv2.resize(part, (recipe.width, recipe.height), interpolation=cv2.INTER_LANCZOS4)
    return enlarged.astype(np.uint8, copy=False)


def _with_detail(picture: Pixels, recipe: Recipe, random: np.random.Generator) -> Pixels:
    shape = picture.shape[:2]
    noise = np.zeros(shape, np.float32)
    for grain, deviation in recipe.octaves:
        coarse = random.standard_normal((-(-shape[0] // grain), -(-shape[1] // grain)), np.float32)
        noise += deviation * cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(picture + noise[..., None], 0, 255), np.uint8)


def encode(picture: Pixels, recipe: Recipe) -> bytes:
    """The JPEG, 4:2:0, whose size is nearest to the recipe's."""

    def at(quality: int) -> bytes:
        flags = [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        ]
        _, data = cv2.imencode(".jpg", picture, flags)
        return bytes(data)

    return nearest(at, *_QUALITIES, recipe.file_bytes)


def nearest(make_file: Callable[[int], bytes], low: int, high: int, wanted: int) -> bytes:
    """The file nearest to ``wanted`` bytes; files grow with the setting, from ``low`` to ``high``."""
    files: dict[int, bytes] = {}
    while low <= high:
        middle = (low + high) // 2
        files[middle] = make_file(middle)
        if len(files[middle]) < wanted:
            low = middle + 1
        else:
            high = middle - 1
    return min(files.values(), key=lambda data: abs(len(data) - wanted))


def told(pictures: list[Picture]) -> dict[str, Any]:
    """For the results."""
    sizes = sorted(len(picture.data) for picture in pictures)
    return {"pictures": len(pictures), "bytes_min": sizes[0], "bytes_max": sizes[-1]}


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, made in enumerate(make(Size(sys.argv[1]), Path("samples"))):
        (folder / f"{number}.jpg").write_bytes(made.data)
