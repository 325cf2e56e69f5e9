"""Pictures that are nearly right: valid ones of every kind, then changed where their readers look.

Structure-aware: a JPEG is changed by its segments, a PNG by its chunks (with checksums that are right again), a WebP by
its RIFF chunks; now and then by bytes. ``Maker.make(seed)`` answers the same bytes for the same seed.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Chunks = list[tuple[bytes, bytes]]
    Change = Callable[[random.Random, Chunks], None]

SIZES: Final = (0, 1, 2, 7, 8, 9, 16, 17, 64, 255, 256, 1000, 4096, 9999, 16383, 16384, 65500, 65535)
LENGTHS: Final = (0, 1, 2, 3, 4, 13, 255, 65535, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class Made(NamedTuple):
    """A picture, and the kind of file that it was."""

    kind: str
    data: bytes


class Maker:
    """Makes any number of them."""

    def __init__(self) -> None:
        """Makes the valid pictures that all come from; a second or so."""
        self.valid: dict[str, list[bytes]] = {"JPEG": [], "PNG": [], "WebP": []}
        for made in _valid(np.random.default_rng(7)):
            self.valid[made.kind].append(made.data)

    def make(self, seed: int) -> Made:
        """The picture of a seed."""
        dice = random.Random(seed)  # the same for the same seed is the point
        kind = dice.choice(tuple(self.valid))
        data = dice.choice(self.valid[kind])
        for _ in range(dice.choice((1, 1, 1, 2))):
            data = self._changed(dice, kind, data)
        return Made(kind, data)

    def _changed(self, dice: random.Random, kind: str, data: bytes) -> bytes:
        way = dice.randrange(10)
        if way < 6:  # mostly by structure
            return _BY_STRUCTURE[kind](dice, data)
        if way < 9:
            return dice.choice((_flipped, _cut, _inserted, _truncated))(dice, data)
        other = dice.choice(self.valid[kind])
        return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other)) :]


# Valid pictures


def _valid(rng: np.random.Generator) -> Iterator[Made]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:24] + bytes(12) + profile[36:]  # without the time at which it was made
    exif = Image.Exif()
    exif[0x0112] = 6
    for width, height in ((64, 48), (33, 17), (300, 200), (8, 300)):
        pixels = rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((width, height))
        for progressive in (False, True):
            for mode in ("RGB", "L", "CMYK"):
                yield _saved(picture.convert(mode), "JPEG", progressive=progressive)
            for quality, subsampling in ((95, 0), (50, 1)):
                options = {"exif": exif, "icc_profile": profile, "subsampling": subsampling}
                yield _saved(picture, "JPEG", quality=quality, progressive=progressive, **options)
            yield _saved(picture, "JPEG", restart_marker_blocks=2, progressive=progressive)
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
            yield _saved(picture.convert(mode), "PNG")
        yield _saved(picture, "PNG", exif=exif, icc_profile=profile)
        yield _saved(picture, "PNG", save_all=True, append_images=[picture.rotate(180)] * 2, duration=9)
        for depth, colour, samples in ((16, 6, 4), (16, 2, 3), (16, 0, 1), (8, 6, 4), (4, 0, 1), (1, 0, 1), (2, 3, 1)):
            for interlaced in (0, 1):
                yield Made("PNG", raw_png(width, height, (depth, colour, samples), interlaced, rng))
        for options in ({"quality": 70}, {"lossless": True}):
            yield _saved(picture, "WEBP", **options)
            yield _saved(picture.convert("RGBA"), "WEBP", **options)
            yield _saved(picture, "WEBP", save_all=True, append_images=[picture.rotate(180)], **options)
        yield _saved(picture, "WEBP", exif=exif, icc_profile=profile, xmp=b"<x/>" * 99)


def _saved(picture: Image.Image, form: str, **options: Any) -> Made:  # Pillow's own
    file = io.BytesIO()
    picture.save(file, form, **options)
    return Made({"WEBP": "WebP"}.get(form, form), file.getvalue())


def raw_png(
    width: int, height: int, kind: tuple[int, int, int], interlaced: int, rng: np.random.Generator | None
) -> bytes:
    """A PNG of random samples, or of zeros, of a kind that Pillow doesn't write.

    Args:
        width: In pixels.
        height: In pixels.
        kind: Bits a sample, colour type, and samples a pixel.
        interlaced: 1: Adam7.
        rng: None: zeros.
    """
    depth, colour, samples = kind
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    packer, packed = zlib.compressobj(6), b""
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns < 1:
            continue
        line = -(-columns * depth * samples // 8)
        for _ in range(max(0, rows)):
            filtering = bytes([4 if rng is None else int(rng.integers(0, 5))])
            packed += packer.compress(filtering + (bytes(line) if rng is None else rng.bytes(line)))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))]
    chunks += [(b"PLTE", bytes(range(12)))] if colour == 3 else []  # a palette's
    return png([*chunks, (b"IDAT", packed + packer.flush()), (b"IEND", b"")])


# By bytes


def _flipped(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    reach = min(len(changed), dice.choice((64, 700, len(changed) or 1)))
    for _ in range(dice.choice((1, 2, 8, 64)) if changed else 0):
        changed[dice.randrange(reach)] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
    return bytes(changed)


def _truncated(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _cut(dice: random.Random, data: bytes) -> bytes:
    start = dice.randrange(len(data) + 1)
    return data[:start] + data[start + dice.choice((1, 2, 4, 16, 256, 4096)) :]


def _inserted(dice: random.Random, data: bytes) -> bytes:
    start = dice.randrange(len(data) + 1)
    more = dice.choice(
        (dice.randbytes(dice.choice((1, 4, 64, 1024))), b"\xff" * dice.randrange(1, 99), data[start:][:512])
    )
    return data[:start] + more + data[start:]


def _poke(dice: random.Random, payload: bytes, reach: int = 200) -> bytes:
    """``payload`` with some of its first bytes changed."""
    changed = bytearray(payload)
    for _ in range(dice.choice((1, 1, 2, 8)) if changed else 0):
        changed[dice.randrange(min(len(changed), reach))] = dice.choice(
            (0, 1, 0x11, 0x22, 0x44, 255, dice.randrange(256))
        )
    return bytes(changed)


# By structure: what all three have


def _drop(dice: random.Random, chunks: Chunks) -> None:
    if len(chunks) > 1:
        del chunks[dice.randrange(len(chunks))]


def _repeat(dice: random.Random, chunks: Chunks) -> None:
    chunks.insert(dice.randrange(len(chunks) + 1), dice.choice(chunks))


def _shuffle(dice: random.Random, chunks: Chunks) -> None:
    middle = chunks[1:-1]
    dice.shuffle(middle)
    chunks[1:-1] = middle


def _change_payload(dice: random.Random, chunks: Chunks) -> None:
    place = dice.randrange(len(chunks))
    name, payload = chunks[place]
    chunks[place] = name, _poke(dice, payload)


_ANYWHERE: Final[Sequence[Change]] = (_drop, _repeat, _shuffle, _change_payload, _change_payload)


def _apply(dice: random.Random, chunks: Chunks, own: Sequence[Change]) -> Chunks:
    for _ in range(dice.choice((1, 1, 2, 3))):
        if chunks:
            dice.choice((*_ANYWHERE, *own, *own))(dice, chunks)
    return chunks


# JPEG: chunks are segments named by their marker; the last one has the entropy-coded data


def _jpeg(dice: random.Random, data: bytes) -> bytes:
    chunks, position = [], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        length = max(2, int.from_bytes(data[position + 2 : position + 4]))
        chunks.append((data[position : position + 2], data[position + 4 : position + 2 + length]))
        position += 2 + length
    scans = data[position:]
    if dice.random() < 0.4:
        scans = _changed_scans(dice, scans)
    made = b"\xff\xd8"
    for marker, payload in _apply(dice, chunks, (_change_frame, _change_frame, _change_tables, _add_segment)):
        length = len(payload) + 2 if dice.random() < 0.98 else dice.choice(LENGTHS)
        made += marker + struct.pack(">H", length & 0xFFFF) + payload
    return made + scans


def _change_frame(dice: random.Random, chunks: Chunks) -> None:
    for place, (marker, payload) in enumerate(chunks):
        if marker[1] in _FRAMES and len(payload) > 8:
            changed = bytearray(payload)
            field = dice.randrange(6)
            if field == 0:
                marker = bytes((0xFF, dice.choice(sorted(_FRAMES))))  # noqa: PLW2901
            elif field == 1:
                changed[0] = dice.choice((2, 8, 12, 16))
            elif field == 2:
                changed[1:5] = struct.pack(">HH", dice.choice(SIZES), dice.choice(SIZES))
            elif field == 3:
                changed[5] = dice.choice((0, 1, 2, 3, 4, 5, 255))
            else:
                changed[dice.randrange(6, len(changed))] = dice.choice(
                    (0, 0x11, 0x12, 0x21, 0x22, 0x14, 0x41, 0x44, 0x31, 255)
                )
            chunks[place] = marker, bytes(changed)


def _change_tables(dice: random.Random, chunks: Chunks) -> None:
    for place, (marker, payload) in enumerate(chunks):
        if marker[1] in {0xC4, 0xDB} and dice.random() < 0.5:
            chunks[place] = marker, _poke(dice, payload)


def _add_segment(dice: random.Random, chunks: Chunks) -> None:
    tiff = dice.choice((b"II*\0", b"MM\0*")) + struct.pack(
        dice.choice("<>") + "I", dice.choice((8, 0, 9, 65530, 2**32 - 1))
    )
    entries = struct.pack("<H", dice.choice((1, 512, 65535))) + struct.pack("<HHII", 0x0112, 3, 1, 6) * 40
    chunks.insert(
        0,
        dice.choice((
            (b"\xff\xe1", b"Exif\0\0" + tiff + entries),
            (b"\xff\xe1", b"Exif\0\0" + dice.randbytes(dice.choice((0, 4, 9, 60000)))),
            (b"\xff\xe2", b"ICC_PROFILE\0" + dice.randbytes(dice.choice((0, 2, 65000)))),
            (b"\xff\xee", b"Adobe" + dice.randbytes(7)),
            (b"\xff\xdd", struct.pack(">H", dice.choice((0, 1, 2, 65535)))),
            (b"\xff\xdc", struct.pack(">H", dice.choice(SIZES))),
            (b"\xff\xcc", dice.randbytes(8)),
        )),
    )  # fmt: skip


def _changed_scans(dice: random.Random, scans: bytes) -> bytes:
    way = dice.randrange(4)
    if way == 0:
        return _poke(dice, scans[:16]) + scans[16:]
    if way == 1:
        last = scans.rfind(b"\xff\xda")
        return scans[:-2] + scans[last:-2] * dice.choice((1, 5, 40, 63, 64, 400)) + b"\xff\xd9"
    changed = bytearray(scans)
    for _ in range(dice.choice((1, 8, 64)) if len(changed) > 20 else 0):
        place = dice.randrange(14, len(changed) - 1)
        changed[place : place + 2] = bytes((255, dice.choice((0, 0xD0, 0xD3, 0xD7, 0xD9, 0xDA, 0xC4, 0xDC, 0xFF))))
    return bytes(changed)


# PNG


def png(chunks: Chunks) -> bytes:
    """A file of these chunks, with right lengths and checksums."""
    framed = (
        struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))
        for name, payload in chunks
    )
    return _PNG + b"".join(framed)


def png_chunks(data: bytes) -> Chunks:
    """Those of a file."""
    chunks, position = [], len(_PNG)
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        chunks.append((name, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


def _png(dice: random.Random, data: bytes) -> bytes:
    own = (_change_header, _change_header, _change_pixels, _split_pixels, _add_chunk, _animate, _change_animation)
    made = png(_apply(dice, png_chunks(data), own))
    if dice.random() < 0.04:  # a wrong length
        place = dice.choice((8, 33)) if len(made) > 40 else 0
        made = made[:place] + struct.pack(">I", dice.choice(LENGTHS)) + made[place + 4 :]
    return made


def _change_header(dice: random.Random, chunks: Chunks) -> None:
    name, payload = chunks[0]
    if name != b"IHDR" or len(payload) != 13:
        return
    fields = list(struct.unpack(">IIBBBBB", payload))
    sizes = (*SIZES, 2**20, 10**8, 2**31 - 1, 2**31, 2**32 - 1)
    which = dice.randrange(7)
    choices: dict[int, Sequence[int]] = {0: sizes, 1: sizes, 2: (0, 1, 2, 4, 8, 16, 32), 3: range(8), 6: (0, 1, 2)}
    fields[which] = dice.choice(choices.get(which, (0, 1, 255)))
    chunks[0] = name, struct.pack(">IIBBBBB", *fields)


def _change_pixels(dice: random.Random, chunks: Chunks) -> None:
    """Inside the compressed stream."""
    for place, (name, payload) in enumerate(chunks):
        if name == b"IDAT":
            try:
                raw = bytearray(zlib.decompress(payload))
            except zlib.error:
                return
            way = dice.randrange(4)
            if way == 0:
                raw = bytearray(_poke(dice, bytes(raw), len(raw)))
            elif way == 1:
                del raw[dice.randrange(len(raw) + 1) :]
            elif way == 2:
                raw += dice.randbytes(dice.choice((1, 100, 10_000)))
            else:
                raw = bytearray(len(raw) * dice.choice((1, 2, 50)))
            chunks[place] = name, zlib.compress(bytes(raw), dice.choice((0, 1, 9)))
            return


def _split_pixels(dice: random.Random, chunks: Chunks) -> None:
    for place, (name, payload) in enumerate(chunks):
        if name == b"IDAT" and payload:
            at = dice.randrange(len(payload))
            chunks[place : place + 1] = [(name, payload[:at]), (name, b""), (name, payload[at:])]
            return


@cache
def _bomb(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def _add_chunk(dice: random.Random, chunks: Chunks) -> None:
    bomb = _bomb(dice.choice((100, 10**6, 10**7)))
    chunks.insert(
        dice.randrange(1, len(chunks) + 1),
        dice.choice((
            (b"zTXt", b"k\0\0" + bomb),
            (b"iTXt", b"k\0\1\0\0\0" + bomb),
            (b"iCCP", b"p\0\0" + bomb),
            (b"tEXt", b"Raw profile type exif\0" + b"v" * dice.choice((0, 100, 100_000))),
            (b"eXIf", b"II*\0" + struct.pack("<IH", 8, 65535) + dice.randbytes(600)),
            (b"PLTE", dice.randbytes(dice.choice((0, 1, 3, 6, 768, 771)))),
            (b"tRNS", dice.randbytes(dice.choice((0, 1, 2, 6, 256, 300)))),
            (b"gAMA", dice.randbytes(4)),
            (b"sBIT", dice.randbytes(3)),
            (dice.randbytes(4), dice.randbytes(10)),
        )),
    )  # fmt: skip


def _animate(dice: random.Random, chunks: Chunks) -> None:
    chunks.insert(1, (b"acTL", struct.pack(">II", dice.choice(LENGTHS), dice.choice(LENGTHS))))
    for number in range(dice.choice((1, 2, 5))):
        place = dice.randrange(1, len(chunks) + 1)
        numbers = (dice.choice((*SIZES, *LENGTHS)) for _ in range(4))
        frame = struct.pack(">IIIIIHHBB", number, *numbers, 1, 10, dice.randrange(4), dice.randrange(3))
        chunks.insert(place, (b"fcTL", frame))
        data = zlib.compress(dice.randbytes(dice.choice((0, 10, 1000, 60_000))))
        chunks.insert(place + 1, (b"fdAT", struct.pack(">I", number + 1) + data))


def _change_animation(dice: random.Random, chunks: Chunks) -> None:
    for place, (name, payload) in enumerate(chunks):
        if name in {b"fcTL", b"acTL", b"fdAT"} and dice.random() < 0.5:
            at = 4 * dice.randrange(max(1, min(6, len(payload) // 4)))
            chunks[place] = name, payload[:at] + struct.pack(">I", dice.choice(LENGTHS)) + payload[at + 4 :]


# WebP


def _webp(dice: random.Random, data: bytes) -> bytes:
    chunks, position = [], 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        chunks.append((name, data[position + 8 : position + 8 + length]))
        position += 8 + length + (length & 1)
    body = b""
    for name, payload in _apply(dice, chunks, (_extend, _add_alpha, _add_frame, _add_profile)):
        length = len(payload) if dice.random() < 0.98 else dice.choice(LENGTHS)
        body += name + struct.pack("<I", length) + payload + bytes(len(payload) & 1)
    length = len(body) + 4 if dice.random() < 0.96 else dice.choice(LENGTHS)
    return b"RIFF" + struct.pack("<I", length) + b"WEBP" + body


def _three(number: int) -> bytes:
    return (number & 0xFFFFFF).to_bytes(3, "little")


def _extend(dice: random.Random, chunks: Chunks) -> None:
    size = _three(dice.choice((*SIZES, 2**24 - 1))) + _three(dice.choice((*SIZES, 2**24 - 1)))
    header = b"VP8X", bytes((dice.randrange(256), 0, 0, 0)) + size
    chunks[0 : chunks[0][0] == b"VP8X"] = [header]


def _add_alpha(dice: random.Random, chunks: Chunks) -> None:
    payload = bytes((dice.randrange(256),)) + dice.randbytes(dice.choice((0, 10, 3000)))
    chunks.insert(dice.randrange(len(chunks) + 1), (b"ALPH", payload))


def _add_frame(dice: random.Random, chunks: Chunks) -> None:
    name, payload = dice.choice(chunks)
    fields = (dice.choice((0, 1, 500, 2**24 - 1)), dice.choice((0, 1, 500)), dice.choice(SIZES), dice.choice(SIZES), 10)
    body = b"".join(map(_three, fields)) + bytes((dice.randrange(4),))
    inner = name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) & 1)
    chunks.insert(dice.randrange(len(chunks) + 1), (b"ANMF", body + inner))
    chunks.insert(0, (b"ANIM", dice.randbytes(6)))


def _add_profile(dice: random.Random, chunks: Chunks) -> None:
    name = dice.choice((b"EXIF", b"ICCP", b"XMP ", b"junk"))
    chunks.insert(dice.randrange(len(chunks) + 1), (name, b"MM\0*" + dice.randbytes(dice.choice((0, 4, 100, 10_000)))))


_BY_STRUCTURE: Final = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp}
