"""The kernels of the GPU runner, compiled for the CPU: their frames are the worker's own decoder's."""

from __future__ import annotations

import ctypes
import importlib
import io
import subprocess
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import shoal.engine.triton
import shoal.modelstore.making
from shoal.modelconfig.model import Resize, ResizeFilter
from shoal.pictures.decode import Decoder, stored_box
from shoal.pictures.geometry import place
from support import pictures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig

GPU = Path(shoal.modelstore.making.__file__).with_name("gpu")
WIDTH, HEIGHT = 224, 192
AS_A_PROGRAM = f"""
#include <algorithm>
#include <cmath>
#include <cstddef>
using std::max; using std::min;
#define __global__
#define __device__
#define __forceinline__ inline
struct Index {{ unsigned x, y; }};
static Index blockIdx, blockDim, threadIdx, gridDim;
#include "{GPU}/pictures.cu"
extern "C" void run(const Picture* pictures, int count, int bicubic, unsigned char* batch, int width, int height) {{
    blockDim = {{1, 1}}; gridDim = {{1, (unsigned)count}}; threadIdx = {{0, 0}};
    for (unsigned at = 0; at < (unsigned)count; ++at) {{ blockIdx = {{0, at}}; resize_columns(pictures, bicubic); }}
    for (unsigned at = 0; at < (unsigned)count; ++at) {{
        blockIdx = {{0, at}};
        resize_rows(pictures, bicubic, batch, width, height);
    }}
}}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("kernels")
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(AS_A_PROGRAM)
    subprocess.run(["c++", "-O2", "-shared", "-fPIC", "-o", library, source], check=True, timeout=120)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def picture_type() -> Iterator[np.dtype[Any]]:
    with pytest.MonkeyPatch.context() as patch:
        for folder in (GPU, Path(shoal.engine.triton.__file__).parent):
            patch.syspath_prepend(str(folder))
        yield importlib.import_module("batch").PICTURE


def _planes(data: bytes) -> list[NDArray[np.uint8]]:
    """Y, Cb and Cr of a JPEG of 4:4:4, as libjpeg has them before it makes colours of them."""
    image = Image.open(io.BytesIO(data))
    image.draft("YCbCr", image.size)
    pixels = np.asarray(image)
    return [np.ascontiguousarray(pixels[..., plane]) for plane in range(3)]


def _frames(kernels: ctypes.CDLL, kind: np.dtype[Any], config: ModelConfig, data: bytes) -> NDArray[np.uint8]:
    header = Decoder(config, max_pixels=10**8, max_scans=100).read_header(data)
    placement = place(config, header.upright)
    columns, rows = placement.content[::-1] if header.transposed else placement.content
    planes = _planes(data)
    scratch = np.zeros((header.height, columns, 3), np.uint8)
    told = np.zeros(1, kind)
    told["planes"] = [plane.ctypes.data for plane in planes]
    told["pitches"], told["size"] = header.width, (header.width, header.height)
    told["scratch"], told["rows_needed"] = scratch.ctypes.data, header.height
    told["components"], told["orientation"] = 3, header.orientation
    told["target"], told["box"] = (columns, rows), stored_box(placement, header.orientation)
    frame = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)
    bicubic = config.resize_filter is ResizeFilter.BICUBIC
    arrays = (ctypes.c_void_p(array.ctypes.data) for array in (told, frame))
    kernels.run(next(arrays), 1, int(bicubic), next(arrays), WIDTH, HEIGHT)
    return frame


@pytest.mark.parametrize("size", [(500, 375), (640, 90), (150, 333)], ids=str)
@pytest.mark.parametrize("filter_", ResizeFilter)
@pytest.mark.parametrize("resize", Resize)
def test_frames_are_the_decoders(
    kernels: ctypes.CDLL, picture_type: np.dtype[Any], resize: Resize, filter_: ResizeFilter, size: tuple[int, int]
) -> None:
    """Within a level of bilinear; of bicubic, within what the order of the two passes makes (Pillow has two)."""
    config = pictures.config(HEIGHT, WIDTH, resize=resize, resize_filter=filter_, resize_shorter_side=256)
    sample = Image.open(Path(__file__).parents[2] / "samples" / "chelsea.jpg").convert("RGB").resize(size)
    most = 1 if filter_ is ResizeFilter.BILINEAR else 4
    for orientation in range(1, 9):
        data = pictures.encode(sample, orientation=orientation, subsampling=0)
        expected = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        Decoder(config, max_pixels=10**8, max_scans=100).decode(data, expected)
        found = _frames(kernels, picture_type, config, data)
        assert np.abs(found.astype(int) - expected).max() <= most, orientation


def _upsampled(plane: NDArray[np.int64], axis: int, first: int, second: int, shift: int) -> NDArray[np.int64]:
    """libjpeg's triangle filter along one axis (jdsample.c): three parts of the nearer sample, one of the farther."""
    before = np.concatenate([plane.take([0], axis), plane.take(range(plane.shape[axis] - 1), axis)], axis)
    after = np.concatenate([plane.take(range(1, plane.shape[axis]), axis), plane.take([-1], axis)], axis)
    pairs = np.stack([(3 * plane + before + first) >> shift, (3 * plane + after + second) >> shift], axis + 1)
    return pairs.reshape([2 * side if at == axis else side for at, side in enumerate(plane.shape)])


@pytest.mark.parametrize(("shift_x", "shift_y"), list(product((0, 1), repeat=2)))
def test_chroma_is_upsampled_as_libjpeg_does_it(
    kernels: ctypes.CDLL, picture_type: np.dtype[Any], shift_x: int, shift_y: int
) -> None:
    """A frame of the picture's own size, so that nothing is resized; luma is 128, and red tells of Cr alone."""
    random = np.random.default_rng(0)
    cells = random.integers(100, 156, (HEIGHT >> shift_y, WIDTH >> shift_x)).astype(np.int64)
    if shift_x and shift_y:
        full = _upsampled(_upsampled(cells, 0, 0, 0, 0), 1, 8, 7, 4)
    else:
        full = _upsampled(cells, 1, 1, 2, 2) if shift_x else _upsampled(cells, 0, 1, 2, 2) if shift_y else cells
    planes = [np.full((HEIGHT, WIDTH), 128, np.uint8), np.full_like(cells, 128, np.uint8), cells.astype(np.uint8)]
    scratch = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    told = np.zeros(1, picture_type)
    told["planes"], told["pitches"] = [plane.ctypes.data for plane in planes], [plane.shape[1] for plane in planes]
    told["size"] = told["target"] = WIDTH, HEIGHT
    told["shifts"], told["components"], told["orientation"] = (shift_x, shift_y), 3, 1
    told["scratch"], told["rows_needed"], told["box"] = scratch.ctypes.data, HEIGHT, (0, 0, WIDTH, HEIGHT)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    arrays = (ctypes.c_void_p(array.ctypes.data) for array in (told, frame))
    kernels.run(next(arrays), 1, 0, next(arrays), WIDTH, HEIGHT)
    assert np.abs(frame[..., 0] - np.rint(128 + 1.402 * (full - 128))).max() <= 1
    assert (frame[..., 2] == 128).all()
