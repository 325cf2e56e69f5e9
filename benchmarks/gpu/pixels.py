"""Frames and answers from JPEGs that the GPU decoded, beside those that the worker's decoder made.

python -m benchmarks.gpu.pixels [--output FILE]

What they are compared with is the worker's decoder as it is by default. Needs what ``benchmarks.gpu.end_to_end`` needs.
Results go to benchmarks/results/gpu_pixels.json.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.common.about import about
from benchmarks.common.files import RESULTS, jpegs, write_json
from benchmarks.gpu.ceilings import Runner
from benchmarks.gpu.rows import packed, row
from benchmarks.gpu.settings import FRAME, RUNNER, SIDE
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, ResizeFilter, Task, Tensor
from shoal.modelstore.making import runners
from shoal.pictures.decode import Decoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RESULT = RESULTS / "gpu_pixels.json"
_BATCH = 16
_TOP = 5
_ORIENTATION = 274


def main() -> None:
    """Compares, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(_runner(Path(folder)))
        network = Path(folder) / "network.pt"
        subprocess.run([sys.executable, "-m", "benchmarks.gpu.network", "resnet50", str(network)], check=True)
        rows = [found for filter_ in ResizeFilter for found in compare(runner, network, filter_)]
    write_json(output, {**about(), "rows": rows})
    for found in rows:
        print(found)


def compare(runner: Runner, network: Path, filter_: ResizeFilter) -> Iterator[dict[str, Any]]:
    """For each kind of picture: differences of frames, in levels, and whether the first five classes are the same."""
    import torch

    config = _config(filter_)
    preparer = runner.preparing.Preparer(0, _BATCH, SIDE, SIDE, runner.memory.HostMemory(), runner.preparing.unit_of(0))
    lane = runner.lane.Lane(
        runner.network.Network(network, RUNNER, ["probabilities"], 0),
        _BATCH,
        FRAME,
        {"probabilities": torch.float32},
        0,
    )

    def answers(frames: NDArray[np.uint8] | None, ready: Any = None) -> NDArray[np.float32]:
        if frames is not None:
            lane.frames[: len(frames)].copy_(torch.from_numpy(frames))
            ready = torch.cuda.Event()
            ready.record()
        lane.start(_BATCH, ready)
        found: NDArray[np.float32] = lane.wait()[0]["probabilities"].numpy()
        return found

    pictures = _pictures()
    while part := list(islice(pictures, _BATCH)):
        batch = runner.batch.Batch(
            *runner.packed(packed([(data, row(config, data)) for _, data in part])), preparer.decoder
        )
        ready, _ = preparer.prepare(batch, lane.frames)
        theirs = answers(None, ready)[: len(part)]
        frames = lane.frames[: len(part)].cpu().numpy().astype(int)
        own = np.stack([_decoded(config, data) for _, data in part])
        ours = answers(own)[: len(part)]
        for number, (kind, _) in enumerate(part):
            difference = np.abs(frames[number] - own[number])
            tops = [set(np.argsort(of[number])[-_TOP:].tolist()) for of in (theirs, ours)]
            decoded = not batch.status[number]
            yield {
                "kind": kind,
                "filter": filter_.value,
                "decoded_by_the_gpu": decoded,
                "largest": int(difference.max()) if decoded else None,
                "mean": round(float(difference.mean()), 4) if decoded else None,
                "same_top_5": tops[0] == tops[1] if decoded else None,
            }


def _decoded(config: ModelConfig, data: bytes) -> NDArray[np.uint8]:
    frame = np.empty((SIDE, SIDE, 3), np.uint8)
    Decoder(config, max_pixels=10**9, max_scans=1000).decode(data, frame)
    return frame


def _pictures() -> Iterator[tuple[str, bytes]]:
    sample, other = (Image.open(path).convert("RGB") for path in jpegs())
    for orientation in range(1, 9):
        for size in ((500, 375), (333, 251)):
            exif = Image.Exif()
            exif[_ORIENTATION] = orientation
            yield f"orientation {orientation}, {size[0]} x {size[1]}", _jpeg(sample.resize(size), exif=exif)
    small = other.resize((500, 375))
    for name, subsampling in (("4:4:4", "4:4:4"), ("4:2:2", "4:2:2"), ("4:2:0", "4:2:0")):
        yield name, _jpeg(small, subsampling=subsampling)
    yield "grey", _jpeg(small.convert("L"))
    yield "restart markers", _jpeg(small, restart_marker_blocks=7)
    yield "optimised Huffman tables", _jpeg(small, optimize=True)
    yield "quality 30", _jpeg(small, quality=30)
    yield "progressive", _jpeg(small, progressive=True)
    yield "CMYK", _jpeg(small.convert("CMYK"))
    for size in ((1280, 854), (4000, 3000)):
        yield f"{size[0]} x {size[1]}", _jpeg(other.resize(size))
    for path in jpegs():
        yield path.name, path.read_bytes()


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **({"quality": 88} | options))
    return buffer.getvalue()


def _config(filter_: ResizeFilter) -> ModelConfig:
    return ModelConfig(
        name="network",
        version=1,
        path=Path("network.pt"),
        task=Task.CLASSIFICATION,
        input=Tensor("image", "uint8", (SIDE, SIDE, 3)),
        outputs=(Tensor("probabilities", "float32", (1000,)),),
        batching=BatchingSettings(max_batch_size=_BATCH),
        resize=Resize.CROP,
        resize_shorter_side=256,
        resize_filter=filter_,
    )


def _runner(folder: Path) -> Path:
    """As ``shoal model add`` puts it beside a model."""
    for name, source in runners.files("gpu").items():
        shutil.copyfile(source, folder / name)
    return folder


if __name__ == "__main__":
    main()
