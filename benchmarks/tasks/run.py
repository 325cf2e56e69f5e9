"""What it costs to read a model's outputs: the heads of detection and segmentation on outputs of common sizes.

python -m benchmarks.tasks.run
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import cv2
import numpy as np

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, Task, Tensor
from shoal.pictures.header import PictureSize
from shoal.v1 import inference_pb2 as pb
from shoal.worker.heads.head import make_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Reply = pb.SegmentReply | pb.DetectReply

ROUNDS = 7
PICTURES = (PictureSize(640, 480), PictureSize(4000, 3000))
FORMS = ("PNG", "RUNS", "CLASS_MAP")


def main() -> None:
    """Prints a Markdown table."""
    cv2.setNumThreads(1)
    print("| head, output | picture | answer | ms | bytes |\n|---|---|---|---|---|")
    source = np.random.default_rng(0)
    for size, mask_size in ((PICTURES[0], "MODEL"), (PICTURES[1], "PICTURE")):
        for form in FORMS:
            request = pb.ImageRequest(mask_form=f"MASK_FORM_{form}", mask_size=f"MASK_SIZE_{mask_size}")
            show("argmax", smooth_scores(source), 512, size, request)
    for name, output in (("yolov8", candidates(source)), ("yolov5", with_objectness(candidates(source)))):
        show(name, output, 640, PICTURES[0], pb.ImageRequest())


def smooth_scores(source: np.random.Generator) -> NDArray[np.float32]:
    """``(21, 512, 512)``: patches, as a segmenter sees them."""
    return np.stack([cv2.resize(source.random((16, 16), np.float32), (512, 512)) for _ in range(21)])


def candidates(source: np.random.Generator) -> NDArray[np.float32]:
    """``(84, 8400)``: a YOLOv8 at 640 x 640, of which 300 candidates score enough."""
    made = source.random((84, 8400), np.float32) * 0.2
    made[:4] *= 640 * 5
    made[2:4] /= 10
    made[4, :300] = 0.9
    return made


def with_objectness(made: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same in the layout of YOLOv5."""
    return np.ascontiguousarray(np.insert(made, 4, 1, axis=0).T)


def show(name: str, output: NDArray[np.float32], side: int, size: PictureSize, request: pb.ImageRequest) -> None:
    """One row of the table."""
    config = ModelConfig(
        name="model",
        version=1,
        path=Path("model.onnx"),
        task=Task.SEGMENTATION,
        input=Tensor("image", "uint8", (side, side, 3)),
        outputs=(Tensor("out", "float32", output.shape),),
        batching=BatchingSettings(),
        resize=Resize.LETTERBOX,
        head=name,
    )
    head = make_head(config)
    reply = head.reply({"out": output[np.newaxis]}, 0, request, size)
    seconds = best(lambda: head.reply({"out": output[np.newaxis]}, 0, request, size))
    if isinstance(reply, pb.SegmentReply):
        what = f"{pb.MaskForm.Name(request.mask_form).removeprefix('MASK_FORM_')}, {reply.width} x {reply.height}"
    else:
        assert isinstance(reply, pb.DetectReply)
        what = f"{len(reply.boxes)} boxes"
    shape = " x ".join(map(str, output.shape))
    print(f"| `{name}`, {shape} | {size.width} x {size.height} | {what} | {seconds * 1e3:.1f} | {reply.ByteSize():,} |")


def best(call: Callable[[], object]) -> float:
    """Seconds of the quickest of ``ROUNDS`` calls."""
    times = []
    for _ in range(ROUNDS):
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
