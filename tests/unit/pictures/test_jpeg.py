"""JPEGs that are valid and rare, that libjpeg only warns about, and that nobody can decode: as Pillow sees them."""

from __future__ import annotations

import base64
import contextlib
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from shoal.errors import InvalidRequest
from shoal.pictures.decode import Decoder
from support.jpegs import JFIF, Jpeg, adobe, flat_lossless, segment, ycc
from support.pictures import QUADRANT_COLOURS, config, encode, quadrants

if TYPE_CHECKING:
    from shoal.service.spec import Decoding, JpegStrictness

Pixels = np.ndarray[Any, Any]
SIZE = (64, 48)
RGB = np.asarray(quadrants(*SIZE))
YCC = ycc(RGB)
INVERTED = [*(RGB[..., channel].astype(float) for channel in range(3)), np.full(RGB.shape[:2], 255.0)]
"""CMYK as Adobe stores it: no ink is 255."""


def file(**changes: Any) -> bytes:
    return bytes(Jpeg(**{"planes": YCC} | changes))


def decode(data: bytes, strictness: JpegStrictness = "normal") -> Pixels:
    width, height = Image.open(io.BytesIO(data)).size
    out = np.zeros((height, width, 3), np.uint8)
    Decoder(config(height, width), max_pixels=10**6, max_scans=64, jpeg_strictness=strictness).decode(data, out)
    return out


def refusal(data: bytes, strictness: JpegStrictness = "normal") -> str:
    out = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(InvalidRequest) as refused:
        Decoder(config(48, 64), max_pixels=10**6, max_scans=64, jpeg_strictness=strictness).decode(data, out)
    return str(refused.value)


def as_pillow(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


GOOD = file()
SOS = GOOD.index(b"\xff\xda")
RESTARTS = file(restart=1)
PROGRESSIVE = encode(quadrants(*SIZE), progressive=True)
SCANS = re.split(rb"(?=\xff\xda)", PROGRESSIVE)

SMALL = {
    "arithmetic coding": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5a"
        "YVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQAR"
        "CAAQABADAREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/ACHiUuia5EbfJ9oBdn5wOzuRrubA/9k="
    ),
    "arithmetic coding, progressive": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5a"
        "YVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//ygAR"
        "CAAQABADAREAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf5LvlXJbu+1y1cBMk1Ru/YrSP/MAAQQBf/aAAgBAQABBQLA/8wABBEF/9oA"
        "CAEDAQE/AcD/zAAEEQX/2gAIAQIBAT8BwP/MAAQQBf/aAAgBAQAGPwLA/8wABBAF/9oACAEBAAE/IcD/2gAMAwEAAgADAAAAEBJA/8wABBEF"
        "/9oACAEDAQE/EMD/zAAEEQX/2gAIAQIBAT8QwP/MAAQQBf/aAAgBAQABPxDA/9k="
    ),
    "lossless": (
        "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgACAAIA1IRAEcRAEIRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAAIB//aAAwDUgBHAEIAAQAA3+f5/AEA"
        "X+AAAEAX+AAAEAX+AAAEAX+AEAL/AABf9/wAAAAL/v8AgAAAAX/f8AAAAC/7/gAAf//Z"
    ),
    "lossless, grey": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAAgH/9oACAEBAAEAAN/EAAIAAQAAgAQAL/AX"
        "+Av8Bf4//9k="
    ),
}
"""``quadrants`` of 16 and of 8 pixels, written with libjpeg-turbo's ``arith_code`` and ``jpeg_enable_lossless``."""
VALID = {
    **{name: base64.b64decode(text) for name, text in SMALL.items()},
    "4:1:1": file(sampling=[(4, 1), (1, 1), (1, 1)]),
    "4:1:0": file(sampling=[(4, 2), (1, 1), (1, 1)]),
    "4:4:0": file(sampling=[(1, 2), (1, 1), (1, 1)]),
    "4:4:1": file(sampling=[(1, 4), (1, 1), (1, 1)]),
    "3x1": file(sampling=[(3, 1), (1, 1), (1, 1)]),
    "1x3": file(sampling=[(1, 3), (1, 1), (1, 1)]),
    "mixed chroma": file(sampling=[(2, 2), (2, 1), (1, 2)]),
    "luminance is the smaller": file(sampling=[(1, 1), (2, 2), (1, 1)]),
    "grey with factors": file(planes=YCC[:1], sampling=[(2, 2)]),
    "CMYK 2111": file(planes=INVERTED, sampling=[(2, 2), (1, 1), (1, 1), (1, 1)], header=adobe(0)),
    "CMYK": file(planes=INVERTED, header=adobe(0)),
    "CMYK without Adobe": file(planes=INVERTED),
    "YCCK": file(planes=[*ycc(255 - RGB), INVERTED[3]], header=adobe(2)),
    "RGB": file(planes=[RGB[..., channel].astype(float) for channel in range(3)], header=adobe(0)),
    "a scan each": file(interleaved=False),
    "extended sequential": file(frame=0xC1),
    "restarts": RESTARTS,
    "progressive": PROGRESSIVE,
    "junk behind": GOOD + b"junk" * 500,
    "fill bytes": GOOD.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
    "no density": file(header=segment(0xE0, b"JFIF\0\1\1\1\0\0\0\0\0\0")),
}
WARNED = {
    "data before the end": file(tail=b"\x55" * 700),
    "a scan's parameters are zero": GOOD[: SOS + 11] + b"\0\0\0" + GOOD[SOS + 14 :],
    "Adobe transform 5": file(header=adobe(5)),
    "Adobe transform 2 of three": file(header=adobe(2)),
    "a future JFIF": file(header=segment(0xE0, b"JFIF\0\x09\x09\0\0\1\0\1\0\0")),
    "a broken ICC profile": file(header=JFIF + segment(0xE2, b"ICC_PROFILE\0\5\2junk")),
    "bytes between segments": GOOD.replace(b"\xff\xdb", b"\0\0\x11\xff\xdb", 1),
    "the wrong restart marker": RESTARTS.replace(b"\xff\xd3", b"\xff\xd5", 1),
    "a restart marker is gone": RESTARTS.replace(b"\xff\xd2", b"", 1),
    "a marker in the middle": GOOD[: SOS + 60] + b"\xff\xe0\0\4ab" + GOOD[SOS + 60 :],
    "it ends in the middle": GOOD[: SOS + 60] + b"\xff\xd9",
    "bad bits": GOOD[: SOS + 40] + b"\xaa" * 5 + GOOD[SOS + 45 :],
    "a scan comes twice": b"".join([*SCANS[:3], SCANS[2], *SCANS[3:]]),
    "scans are missing": b"".join(SCANS[:2]) + b"\xff\xd9",
}
TRUNCATED = {
    "no end": GOOD[:-2],
    "half": GOOD[: (SOS + len(GOOD)) // 2],
    "progressive, half": PROGRESSIVE[: len(PROGRESSIVE) * 9 // 10],
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("strictness", ["strict", "normal", "lenient"])
def test_valid_files_are_shown_as_pillow_shows_them(name: str, strictness: JpegStrictness) -> None:
    assert np.array_equal(decode(VALID[name], strictness), as_pillow(VALID[name]))


@pytest.mark.parametrize("name", [name for name in VALID if not re.search("CMYK w|grey", name)])
def test_the_encoder_of_these_tests_writes_what_it_means(name: str) -> None:
    shown = as_pillow(VALID[name])
    height, width = shown.shape[:2]
    middles = shown[height // 4 :: height // 2, width // 4 :: width // 2].reshape(-1, 3)
    np.testing.assert_allclose(middles, QUADRANT_COLOURS, atol=12)


@pytest.mark.parametrize("name", WARNED)
@pytest.mark.parametrize("strictness", ["normal", "lenient"])
def test_what_libjpeg_warns_about_is_shown_as_pillow_shows_it(name: str, strictness: JpegStrictness) -> None:
    assert np.array_equal(decode(WARNED[name], strictness), as_pillow(WARNED[name]))


@pytest.mark.parametrize("name", sorted(WARNED.keys() - {"scans are missing"}))  # of which libjpeg says nothing
def test_strictness_refuses_what_libjpeg_warns_about(name: str) -> None:
    assert "jpeg_strictness is strict" in refusal(WARNED[name], "strict")


@pytest.mark.parametrize("name", TRUNCATED)
def test_truncated_files_are_refused_unless_the_pool_is_lenient(name: str) -> None:
    data = TRUNCATED[name]
    with pytest.raises(OSError, match="truncated"):
        as_pillow(data)
    assert "truncated" in refusal(data)
    assert "truncated" in refusal(data, "strict")
    shown = decode(data, "lenient")
    np.testing.assert_allclose(shown[8, 8], QUADRANT_COLOURS[0], atol=30)


def test_a_large_file_with_a_warning_is_reduced_as_well() -> None:
    data = encode(quadrants(1600, 1200))
    out, wanted = np.zeros((2, 100, 100, 3), np.uint8)
    decoder = Decoder(config(100, 100), max_pixels=10**7, max_scans=64)
    decoder.decode(data, wanted)
    decoder.decode(data[:-2] + b"\x55" * 700 + b"\xff\xd9", out)
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_a_lossless_file_is_never_reduced_in_the_decoder(channels: int, decoding: Decoding) -> None:
    """TurboJPEG writes past its memory if asked to."""
    data = flat_lossless(1600, 1200, channels)
    wanted = as_pillow(data)[0, 0]
    out = np.zeros((100, 100, 3), np.uint8)
    for _ in range(3):
        Decoder(config(100, 100), max_pixels=10**7, max_scans=64, decoding=decoding).decode(data, out)
        assert (out == wanted).all()
        assert wanted.tolist() == [128] * 3


@pytest.mark.parametrize(("data", "cause"), [
    (file(planes=[plane * 16 for plane in YCC], precision=12, frame=0xC1), "12 bits a sample"),
    (file(frame=0xC5), "hierarchical"),
    (file(frame=0xCB), "lossless with arithmetic coding"),
    (file(planes=YCC[:2]), "2 components"),
    (file(planes=YCC + YCC[:2]), "5 components"),
    (file(sampling=[(2, 2)] * 3), "more than 10 blocks"),
    (file(sampling=[(3, 1), (2, 1), (1, 1)]), "aren't multiples"),
    (file(late_height=True), r"height after its first scan \(DNL\)"),
    (GOOD[:SOS], "truncated"),
    (GOOD[:2] + GOOD, "damaged"),
    (GOOD[: SOS + 14] + b"\xff\xd8" * 3 + GOOD[SOS + 14 :], "damaged"),
])  # fmt: skip
def test_what_nobody_decodes_is_refused_with_its_cause(data: bytes, cause: str) -> None:
    with pytest.raises((OSError, SyntaxError)):
        as_pillow(data)
    for strictness in ("normal", "lenient"):
        assert re.search(cause, refusal(data, strictness))


def test_no_jpeg_writes_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    modes: list[JpegStrictness] = ["strict", "normal", "lenient"]
    decoders = [Decoder(config(), max_pixels=10**6, max_scans=64, jpeg_strictness=mode) for mode in modes]
    out, shown = np.zeros((32, 32, 3), np.uint8), 0
    for data in [*VALID.values(), *WARNED.values(), *TRUNCATED.values()]:
        zeros, headless = data[:200] + bytes(9) + data[209:], data.replace(b"\xff\xda", b"\xff\xee", 1)
        for damaged in (data, zeros, data[:-40], headless):
            for decoder in decoders:
                with contextlib.suppress(InvalidRequest):
                    decoder.decode(damaged, out)
                    shown += 1
    assert shown > 100
    assert capfd.readouterr() == ("", "")
