from __future__ import annotations

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from shoal.errors import ConfigurationError, InvalidRequest
from shoal.modelconfig.model import ModelConfig, Resize, ResizeFilter, Tensor
from shoal.pictures.decode import Decoder, _dct_scale
from shoal.pictures.geometry import place
from shoal.pictures.header import PictureSize
from shoal.pictures.region import PictureRegion
from support.pictures import QUADRANT_COLOURS, config, encode, many_scans, quadrants, resized_header, stored

if TYPE_CHECKING:
    from shoal.service.spec import Decoding, JpegStrictness


PHOTOGRAPHS = Path(__file__).parents[3] / "samples"


def decoder(**changes: Any) -> Decoder:
    return Decoder(config(**changes), max_pixels=50_000_000, max_scans=64)


def decode(data: bytes, **changes: Any) -> tuple[np.ndarray[Any, Any], PictureSize]:
    settings_ = config(**changes)
    out = np.full(settings_.input.shape, 77, settings_.input.dtype)
    size = decoder(**changes).decode(data, out)
    return out, size


def corners(pixels: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """The colours in the middle of each quadrant."""
    height, width = pixels.shape[:2]
    return [
        tuple(int(v) for v in pixels[y, x])
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    ]


def assert_quadrants(pixels: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(corners(pixels), QUADRANT_COLOURS, atol=40)


def smooth(width: int, height: int) -> Image.Image:
    """A picture that any decent filter shrinks to nearly the same pixels."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(6 * x / width), np.cos(5 * y / height), np.sin(4 * (x / width + y / height))]
    return Image.fromarray((127 + 120 * np.stack(waves, -1)).astype(np.uint8))


def noisy(width: int, height: int) -> Image.Image:
    """Blocks of full contrast: every filter and every order of passes shows on it."""
    small = np.random.default_rng(width * height).integers(0, 2, (height // 3 + 1, width // 3 + 1, 3)) * 255
    return Image.fromarray(small.repeat(3, 0).repeat(3, 1)[:height, :width].astype(np.uint8))


def reference(
    data: bytes, settings_: ModelConfig, cut: tuple[int, int, int, int] | None = None
) -> np.ndarray[Any, Any]:
    """Pillow's decoder, ``exif_transpose``, ``crop`` and ``resize``; CROP is torchvision's Resize and CenterCrop."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB").crop(cut)
    filter_ = Image.Resampling[settings_.resize_filter.name]
    width, height = settings_.width, settings_.height
    if settings_.resize is Resize.STRETCH:
        return np.asarray(image.resize((width, height), filter_)).astype(int)
    frame = Image.new("RGB", (width, height))
    if settings_.resize is Resize.LETTERBOX:
        scale = min(width / image.width, height / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        frame.paste(image.resize(size, filter_))
        return np.asarray(frame).astype(int)
    short, long = sorted(image.size)
    shorter = settings_.resize_shorter_side
    longer = int(shorter * long / short)
    image = image.resize((shorter, longer) if image.width <= image.height else (longer, shorter), filter_)
    left, upper = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    frame.paste(image.crop((left, upper, left + width, upper + height)))
    return np.asarray(frame).astype(int)


RULES = {
    Resize.STRETCH: {"height": 112, "width": 112},
    Resize.LETTERBOX: {"height": 48, "width": 64},
    Resize.CROP: {"height": 112, "width": 100, "resize_shorter_side": 128},
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_comes_out_upright(form: str, orientation: int) -> None:
    upright = quadrants(120, 80)
    pixels, size = decode(encode(stored(upright, orientation), form, orientation), height=32, width=48)
    assert size == PictureSize(120, 80)
    assert_quadrants(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("which", list(ResizeFilter))
@pytest.mark.parametrize("rule", list(Resize))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_every_pixel_is_within_a_level_of_pillow(
    form: str, rule: Resize, which: ResizeFilter, orientation: int
) -> None:
    changes = {"resize": rule, "resize_filter": which, **RULES[rule]}
    for size in [(150, 225), (320, 213), (100, 60), (45, 305)]:
        data = encode(stored(noisy(*size), orientation), form, orientation)
        pixels, seen = decode(data, **changes)
        assert seen == size
        assert np.abs(pixels - reference(data, config(**changes))).max() <= 1, size


@pytest.mark.parametrize("which", list(ResizeFilter))
def test_a_large_jpeg_is_decoded_smaller_and_stays_near_pillow(which: ResizeFilter) -> None:
    """The bound that docs/pictures.md states, on what is made for it to be met: edges between colours."""
    data = encode(quadrants(2000, 1500).resize((2600, 2000)), quality=90)
    changes = {"height": 224, "width": 224, "resize_filter": which}
    pixels, _ = decode(data, **changes)
    assert _dct_scale(place(config(**changes), PictureSize(2600, 2000)), 4) == 2
    assert np.abs(pixels - reference(data, config(**changes))).max() <= 4


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(1300, 1000), (1283, 855), (999, 1501), (641, 1200)])
def test_fast_decodes_smaller_still(size: tuple[int, int], orientation: int) -> None:
    upright = smooth(size[0] // 4, size[1] // 4).resize(size)
    data = encode(stored(upright, orientation), orientation=orientation)
    settings_ = config(height=100, width=100)
    out = np.empty((100, 100, 3), np.uint8)
    Decoder(settings_, max_pixels=10**8, max_scans=64, decoding="fast").decode(data, out)
    assert np.abs(out - reference(data, settings_)).max() <= 6


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_letterbox_is_at_the_upper_left_and_the_rest_zero(orientation: int) -> None:
    data = encode(stored(quadrants(120, 60), orientation), orientation=orientation)
    pixels, _ = decode(data, height=64, width=64, resize=Resize.LETTERBOX)
    assert_quadrants(pixels[:32])
    assert not pixels[32:].any()


def test_letterbox_of_a_tall_picture() -> None:
    pixels, _ = decode(encode(quadrants(50, 100)), height=64, width=64, resize=Resize.LETTERBOX)
    assert_quadrants(pixels[:, :32])
    assert not pixels[:, 32:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (7, 3)])
@pytest.mark.parametrize("rule", list(Resize))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_extreme_shapes(form: str, rule: Resize, size: tuple[int, int]) -> None:
    data = encode(Image.new("RGB", size, (200, 100, 50)), form)
    pixels, seen = decode(data, resize=rule, resize_shorter_side=36)
    assert seen == size
    np.testing.assert_allclose(pixels[0, 0], (200, 100, 50), atol=12)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_variants(options: dict[str, Any]) -> None:
    assert_quadrants(decode(encode(quadrants(), **options))[0])


def test_grey() -> None:
    pixels, _ = decode(encode(quadrants().convert("L")))
    expected = [(grey,) * 3 for grey in (76, 150, 29, 226)]
    np.testing.assert_allclose(corners(pixels), expected, atol=4)


def test_cmyk() -> None:
    assert_quadrants(decode(encode(quadrants().convert("CMYK")))[0])


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_png_modes(mode: str) -> None:
    assert_quadrants(decode(encode(quadrants().convert(mode), "PNG"))[0])


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_dropped(form: str) -> None:
    image = quadrants().convert("RGBA")
    image.putalpha(0)
    assert_quadrants(decode(encode(image, form, **({"exact": True, "lossless": True} if form == "WEBP" else {})))[0])


def test_16_bit_png_keeps_its_brightness() -> None:
    image = Image.fromarray(np.full((40, 40), 0x8000, np.uint16))
    np.testing.assert_allclose(decode(encode(image, "PNG"))[0], 128, atol=1)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_counts(form: str) -> None:
    data = encode(quadrants(), form, save_all=True, append_images=[Image.new("RGB", (120, 80))])
    assert_quadrants(decode(data)[0])


def test_float32_nchw_is_normalised() -> None:
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    data = encode(quadrants(120, 60))
    plain, _ = decode(data, resize=Resize.LETTERBOX)
    pixels, _ = decode(data, input=Tensor("x", "float32", (3, 32, 32)), resize=Resize.LETTERBOX, mean=mean, std=std)
    np.testing.assert_allclose(pixels, ((plain - np.array(mean)) / std).transpose(2, 0, 1), rtol=1e-5)


def test_uint8_nchw() -> None:
    pixels, _ = decode(encode(quadrants()), input=Tensor("x", "uint8", (3, 32, 32)))
    assert_quadrants(pixels.transpose(1, 2, 0))


def test_writes_its_own_row_only() -> None:
    slot = np.full((3, 32, 32, 3), 9, np.uint8)
    decoder().decode(encode(quadrants()), slot[1])
    assert (slot[0] == 9).all()
    assert (slot[2] == 9).all()
    assert_quadrants(slot[1])


def test_threads_share_a_decoder() -> None:
    shared, data = decoder(), encode(quadrants())
    slot = np.zeros((16, 32, 32, 3), np.uint8)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda row: shared.decode(data, row), slot))
    assert (slot == slot[0]).all()


def test_takes_any_buffer() -> None:
    for form in ("JPEG", "PNG"):
        out = np.zeros((32, 32, 3), np.uint8)
        decoder().decode(memoryview(encode(quadrants(), form)), out)
        assert_quadrants(out)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated(form: str, share: float) -> None:
    data = encode(smooth(200, 150), form)
    with pytest.raises(InvalidRequest, match="truncated"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [
    b"", b"text file", bytes(1000), resized_header(encode(quadrants()), 20_000, 20_000),
    many_scans(encode(quadrants(), progressive=True), 5000),
])  # fmt: skip
def test_refuses(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(data)


@pytest.mark.parametrize("shape", [(32, 32, 4), (3, -1, -1), (32, 32), (1, 3, 32, 32)])
def test_refuses_inputs_that_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"model.onnx: the input 'x'"):
        decoder(input=Tensor("x", "uint8", shape))


SAMPLES = [encode(smooth(48, 36), form, **options) for form, options in (
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"orientation": 6}), ("PNG", {}), ("WEBP", {}),
    ("JPEG", {"restart_marker_blocks": 1}), ("JPEG", {"subsampling": 0}),
)]  # fmt: skip


@settings(max_examples=150)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.floats(0.3, 1),
    st.sampled_from(["strict", "normal", "lenient"]),
    st.sampled_from(["exact", "fast"]),
)
def test_damaged_pictures_decode_or_are_refused(
    data: bytes, damage: list[tuple[float, int]], keep: float, strictness: JpegStrictness, decoding: Decoding
) -> None:
    damaged = bytearray(data)
    for where, value in damage:
        damaged[int(where * (len(data) - 1))] = value
    shared = Decoder(config(8, 8), max_pixels=10**6, max_scans=64, decoding=decoding, jpeg_strictness=strictness)
    with contextlib.suppress(InvalidRequest):
        shared.decode(bytes(damaged[: int(keep * len(data))]), np.zeros((8, 8, 3), np.uint8))


def region_of(cut: tuple[int, int, int, int], size: tuple[int, int]) -> PictureRegion:
    left, upper, right, lower = cut
    return PictureRegion(left / size[0], upper / size[1], (right - left) / size[0], (lower - upper) / size[1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("which", list(ResizeFilter))
@pytest.mark.parametrize("rule", list(Resize))
@pytest.mark.parametrize("form", ["JPEG", "progressive", "PNG", "WEBP"])
def test_a_region_is_what_pillow_cuts_out(form: str, rule: Resize, which: ResizeFilter, orientation: int) -> None:
    """Beside each cut the picture is of another colour: a filter that reached out would show it."""
    settings_ = config(resize=rule, resize_filter=which, **RULES[rule])
    size = (321, 213)
    cuts = [(40, 30, 281, 190), (0, 0, 150, 213), (171, 63, 321, 213), (100, 7, 117, 200), (200, 100, 201, 101)]
    options: dict[str, Any] = {"progressive": True, "quality": 75} if form == "progressive" else {}
    if form == "WEBP":
        options = {"lossless": True}
    data = encode(stored(noisy(*size), orientation), "JPEG" if form == "progressive" else form, orientation, **options)
    out = np.empty(settings_.input.shape, np.uint8)
    parts = decoder(resize=rule, resize_filter=which, **RULES[rule]).decode_parts
    for cut, seen in zip(cuts, parts(data, out, [region_of(cut, size) for cut in cuts]), strict=True):
        assert seen == size
        assert np.abs(out - reference(data, settings_, cut)).max() <= 1, cut


@pytest.mark.parametrize("sample", ["chelsea.jpg", "coffee.jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_of_a_photograph(sample: str, orientation: int) -> None:
    upright = Image.open(PHOTOGRAPHS / sample)
    data = encode(stored(upright, orientation), orientation=orientation)
    settings_ = config(resize=Resize.CROP, **RULES[Resize.CROP])
    out = np.empty(settings_.input.shape, np.uint8)
    for cut in [(130, 40, 390, 260), (0, 0, *upright.size), (upright.width - 99, 0, upright.width, 77)]:
        decoder(resize=Resize.CROP, **RULES[Resize.CROP]).decode(data, out, region_of(cut, upright.size))
        assert np.abs(out - reference(data, settings_, cut)).max() <= 1, cut


def test_the_whole_picture_as_a_region_is_the_picture() -> None:
    data = encode(noisy(150, 225))
    whole, _ = decode(data)
    out = np.empty_like(whole)
    decoder().decode(data, out, PictureRegion(0, 0, 1, 1))
    np.testing.assert_array_equal(out, whole)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_a_region_that_is_decoded_smaller_shows_nothing_from_beside_it(decoding: Decoding, orientation: int) -> None:
    """White all around, and the cut's edges lie between the pixels of the smaller picture."""
    picture = Image.new("RGB", (1203, 901), "white")
    cut = (101, 51, 1102, 850)
    grey = smooth(250, 200).resize((1001, 799))
    picture.paste(grey, cut[:2])
    data = encode(stored(picture, orientation), orientation=orientation, quality=100, subsampling=0)
    settings_ = config(height=32, width=32)
    made = Decoder(settings_, max_pixels=10**8, max_scans=64, decoding=decoding)
    assert made.dct_scale(made.place(made.read_header(data), [region_of(cut, picture.size)])) in {4, 8}
    out = np.empty((32, 32, 3), np.uint8)
    made.decode(data, out, region_of(cut, picture.size))
    assert np.abs(out - reference(data, settings_, cut)).max() <= (4 if decoding == "exact" else 12)


def test_the_smallest_region_says_how_small_a_jpeg_is_decoded() -> None:
    data = encode(smooth(2600, 2000))
    made = decoder(height=100, width=100)
    large, small = PictureRegion(0, 0, 1, 1), PictureRegion(0.4, 0.4, 0.05, 0.05)
    header = made.read_header(data)
    assert made.dct_scale(made.place(header, [large])) == 4
    assert made.dct_scale(made.place(header, [large, small])) == 1
