"""``python -m benchmarks.regions.run``: CPU time of one worker's fetching and decoding, in microseconds.

Pictures are in memory, so that the store's own time doesn't count. What is compared takes turns, and the least of the
rounds is shown: the machine's other work only adds.
"""

from __future__ import annotations

import asyncio
import io
import sys
import uuid
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Final

import numpy as np
from obstore.store import MemoryStore
from PIL import Image

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, Task, Tensor
from shoal.pictures.decode import Decoder
from shoal.pictures.region import PictureRegion
from shoal.worker.fetch_picture import Fetcher
from shoal.worker.picture_cache import Content, PictureCache, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS: Final = 7
PICTURES: Final = 1500
REGIONS: Final = 30
_MICRO: Final = 1e6
_SAMPLE: Final = Path(__file__).parents[2] / "samples" / "coffee.jpg"
_CACHE_BYTES: Final = 64 * 2**20
_OUTPUT: Final = np.empty((224, 224, 3), np.uint8)


def main() -> None:
    """Measures and prints."""
    data = _picture()
    print(f"a JPEG of 1280 x 854, {len(data):,} bytes; CPU us, the least of {ROUNDS} rounds", file=sys.stderr)
    store, keys = MemoryStore(), [f"{uuid.uuid4()}.jpg" for _ in range(PICTURES)]
    for key in keys:
        store.put(key, data)
    _tell(
        "fetch of a picture that comes once", _compared(lambda cache: asyncio.run(_fetch(store, keys, cache)), PICTURES)
    )
    _tell("decode of one, whole", _compared(lambda cache: _decode(data, [None], cache), 1))
    _tell(f"decode of {REGIONS} regions, each a request", _compared(lambda cache: _regions(data, cache), 1))
    once = min(_timed(lambda: _together(data)) for _ in range(ROUNDS))
    print(f"{f'decode of {REGIONS} regions in one request':44} {once:10,.0f}")


def _picture() -> bytes:
    file = io.BytesIO()
    Image.open(_SAMPLE).resize((1280, 854)).save(file, "JPEG", quality=88)
    return file.getvalue()


def _compared(work: Callable[[PictureCache | None], object], count: int) -> tuple[float, float]:
    """Without a cache, and with one, of each of ``count``."""
    rounds = [(_timed(lambda: work(None)), _timed(lambda: work(PictureCache(_CACHE_BYTES)))) for _ in range(ROUNDS)]
    off, on = (min(each) / count for each in zip(*rounds, strict=True))
    return off, on


def _timed(work: Callable[[], object]) -> float:
    began = process_time()
    work()
    return (process_time() - began) * _MICRO


def _tell(what: str, found: tuple[float, float]) -> None:
    print(f"{what:44} {found[0]:10,.1f} without the cache {found[1]:10,.1f} with it")


async def _fetch(store: MemoryStore, keys: Sequence[str], cache: PictureCache | None) -> None:
    fetcher = Fetcher(store, concurrency=64, max_bytes=2**25, budget_bytes=2**28, timeout_seconds=10, cache=cache)
    for first in range(0, len(keys), 64):
        for fetched in await asyncio.gather(*(fetcher.fetch(key) for key in keys[first : first + 64])):
            fetched.release()


def _decoder() -> Decoder:
    config = ModelConfig(
        name="model",
        version=1,
        path=Path("model.onnx"),
        task=Task.CLASSIFICATION,
        input=Tensor("image", "uint8", (224, 224, 3)),
        outputs=(Tensor("logits", "float32", (1000,)),),
        batching=BatchingSettings(),
        resize=Resize.STRETCH,
    )
    return Decoder(config, max_pixels=10**8, max_scans=64)


def _decode(data: bytes, regions: Sequence[PictureRegion | None], cache: PictureCache | None) -> None:
    decoder, shelf = _decoder(), _shelf(data, cache)
    for region in regions:
        decoder.decode_if_quick(data, [lambda: _OUTPUT], [region], shelf if region is not None else None)


def _shelf(data: bytes, cache: PictureCache | None) -> Shelf | None:
    if cache is None:
        return None
    content = Content("key", "tag", data)
    cache.put(content)
    return Shelf(cache, content)


def _parts() -> list[PictureRegion]:
    return [PictureRegion(0.1 * (n % 6), 0.15 * (n // 6), 0.25, 0.35) for n in range(REGIONS)]


def _regions(data: bytes, cache: PictureCache | None) -> None:
    _decode(data, _parts(), cache)


def _together(data: bytes) -> None:
    _decoder().decode_if_quick(data, [lambda: _OUTPUT] * REGIONS, _parts())


if __name__ == "__main__":
    main()
