"""How near to Pillow's the pixels are that a model is fed, whether it answers the same, and what that costs.

python -m benchmarks.pictures.run --images FOLDER… [--store MODEL_STORE]

Every picture is cut and scaled to several sizes and encoded as JPEG (quality 90, 4:2:0). Each way decodes each file for
EfficientNet-Lite0's input; the reference is Pillow's full decode, its resize and torchvision's crop. `OpenCV` is what
Shoal did before: the smallest DCT scale that is large enough, and an area average. All times are CPU time of one thread
and come from one loop for each size, ways in turn: the best of five of each file, the median of the files.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import openvino
import simplejpeg
from PIL import Image

from benchmarks.common.files import SAMPLES
from benchmarks.common.shown import ShownDecoder
from shoal.modelconfig.model import ResizeFilter
from shoal.modelstore.making import efficientnet
from shoal.modelstore.making.build import add_model
from shoal.pictures import resample
from shoal.pictures.decode import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig

    Pixels = NDArray[np.uint8]

WIDTHS = (500, 640, 1280, 4000)
CUTS = 2
ROUNDS = 5
decoder = partial(Decoder, max_pixels=10**8, max_scans=64)
Way = Callable[[bytes], "Pixels"]


def main() -> None:
    """Prints two Markdown tables."""
    options = _arguments()
    cv2.setNumThreads(1)
    config = _model(options.store)
    files = {width: list(pictures(options.images, width)) for width in WIDTHS}
    print(f"{sum(map(len, files.values()))} pictures\n")
    print("| filter | way | mean difference | largest | same top-1 as Pillow |\n|---|---|---|---|---|")
    top = _top(config)
    for filter_ in ResizeFilter:
        for name, way in ways(replace(config, resize_filter=filter_)).items():
            if name != "Pillow":
                print(_likeness(filter_, name, way, pillow(config, filter_), files, top))
    print("\n| filter, width | " + " | ".join(ways(config)) + " |" + "\n|---|" + "---|" * len(ways(config)))
    for filter_ in ResizeFilter:
        for width in WIDTHS:
            print(_costs(filter_, width, ways(replace(config, resize_filter=filter_)), files[width]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", default=[SAMPLES], help="Folders.")
    parser.add_argument("--store", type=Path, default=Path(".shoal/models"), help="Where the model is, or is put.")
    return parser.parse_args()


def _model(store: Path) -> ModelConfig:
    model, recipe = efficientnet.prepare(store.parent / "downloads")
    return add_model(store, model, replace(recipe, name="pixels"), force=True)


def pictures(folders: Sequence[Path], width: int) -> Iterator[bytes]:
    """Each picture of the folders and some cuts of it, ``width`` pixels wide, as JPEG."""
    generator = np.random.default_rng(width)
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        try:
            whole = Image.open(path).convert("RGB")
        except OSError:  # a README
            continue
        for _ in range(CUTS):
            share = generator.uniform(0.6, 1, 2)
            size = [int(side * part) for side, part in zip(whole.size, share, strict=True)]
            left, upper = (int(generator.uniform(0, side - kept)) for side, kept in zip(whole.size, size, strict=True))
            cut = whole.crop((left, upper, left + size[0], upper + size[1]))
            scaled = cut.resize((width, max(1, round(width * cut.height / cut.width))), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            scaled.save(buffer, "JPEG", quality=90)
            yield buffer.getvalue()


def ways(config: ModelConfig) -> dict[str, Way]:
    """Name to what decodes a file for the model."""
    return {
        "Pillow": pillow(config, config.resize_filter),
        "OpenCV": lambda data: opencv(config, data),
        "exact": _shoal(config, decoder(config)),
        "exact, no vectors": _shoal(config, decoder(config), vectors=False),
        "fast": _shoal(config, decoder(config, decoding="fast")),
    }


def _shoal(config: ModelConfig, made: Decoder, *, vectors: bool = resample.HAS_VECTORS) -> Way:
    def decode(data: bytes, out: Pixels) -> None:
        has, resample.HAS_VECTORS = resample.HAS_VECTORS, vectors  # type: ignore[misc]
        made.decode(data, out)
        resample.HAS_VECTORS = has  # type: ignore[misc]

    return _into(decode, config)


def _into(decode: Callable[[bytes, Pixels], object], config: ModelConfig) -> Way:
    """``decode`` with a new picture to decode into each time."""

    def decoded(data: bytes) -> Pixels:
        out = np.empty(config.input.shape, np.uint8)
        decode(data, out)
        return out

    return decoded


def pillow(config: ModelConfig, filter_: ResizeFilter) -> Way:
    """The reference."""
    return _into(ShownDecoder(replace(config, resize_filter=filter_)).decode, config)


def opencv(config: ModelConfig, data: bytes) -> Pixels:
    """The smallest DCT scale that is large enough, a cut, and an average of areas."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    needed = min(height, width) * config.width / config.resize_shorter_side
    scale = next((scale for scale in (8, 4, 2) if scale <= needed / config.width), 1)
    least = {"min_width": -(-width // scale), "min_height": -(-height // scale)} if scale > 1 else {}
    picture = simplejpeg.decode_jpeg(data, "RGB", **least)
    side = round(min(picture.shape[:2]) * config.width / config.resize_shorter_side)
    upper, left = ((length - side) // 2 for length in picture.shape[:2])
    window = picture[upper : upper + side, left : left + side]
    target = (config.width, config.height)
    if 1 < side / config.width < 2:
        window = cv2.resize(window, (2 * config.width, 2 * config.height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(window, target, interpolation=cv2.INTER_AREA), np.uint8)


def _top(config: ModelConfig) -> Callable[[Pixels], int]:
    model = openvino.Core().compile_model(str(config.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: int(np.argmax(model(pixels[None])[0]))


@dataclass(slots=True)
class Likeness:
    """Of a way's pixels to the reference's."""

    total: float = 0
    largest: int = 0
    same: int = 0
    count: int = 0


def _likeness(
    filter_: ResizeFilter,
    name: str,
    way: Way,
    reference: Way,
    files: dict[int, list[bytes]],
    top: Callable[[Pixels], int],
) -> str:
    seen = Likeness()
    for data in (data for group in files.values() for data in group):
        pixels, wanted = way(data), reference(data)
        difference = np.abs(pixels.astype(int) - wanted)
        seen.total += difference.mean()
        seen.largest = max(seen.largest, int(difference.max()))
        seen.same += top(pixels) == top(wanted)
        seen.count += 1
    return f"| {filter_} | {name} | {seen.total / seen.count:.2f} | {seen.largest} | {seen.same} of {seen.count} |"


def _costs(filter_: ResizeFilter, width: int, named: dict[str, Way], files: Sequence[bytes]) -> str:
    times: dict[str, list[float]] = {name: [] for name in named}
    for data in files[:8]:
        tried: dict[str, list[float]] = {name: [] for name in named}
        for _ in range(ROUNDS):
            for name, way in named.items():
                started = thread_time()
                way(data)
                tried[name].append(thread_time() - started)
        for name, own in tried.items():
            times[name].append(min(own))
    base = median(times["OpenCV"])
    cells = [f"{median(own) * 1000:.2f} ({median(own) / base:.2f})" for own in times.values()]
    return f"| {filter_}, {width} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
