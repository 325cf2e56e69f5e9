"""A small JPEG encoder for files that nobody's encoder writes: any components, sampling factors, precision and markers.

ITU-T T.81: baseline and extended sequential, with the tables of its annex K.3.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Plane = np.ndarray[Any, np.dtype[np.float64]]

_DC = (bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, *[0] * 7]), bytes(range(12)))
_AC = (
    bytes([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D]),
    bytes.fromhex(
        "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a"
        "434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9"
        "aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    ),
)
_ORDER = sorted(range(64), key=lambda at: (sum(place := divmod(at, 8)), place[0] if sum(place) % 2 else place[1]))
"""Zigzag."""
_ROWS = np.arange(8)[:, None]
_COSINES = np.where(_ROWS == 0, np.sqrt(1 / 8), 0.5) * np.cos((2 * _ROWS.T + 1) * _ROWS * np.pi / 16)

JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def segment(marker: int, payload: bytes) -> bytes:
    """Of a JPEG's header."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def adobe(transform: int) -> bytes:
    """0: as stored; 1: YCbCr; 2: YCCK."""
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def ycc(rgb: np.ndarray[Any, Any]) -> list[Plane]:
    """JFIF's luminance and colour differences."""
    red, green, blue = (rgb[..., channel].astype(float) for channel in range(3))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return [luminance, (blue - luminance) / 1.772 + 128, (red - luminance) / 1.402 + 128]


@dataclass(kw_only=True)
class Jpeg:
    """What is to be written; ``bytes()`` of it is the file."""

    planes: Sequence[Plane]
    """The components at full size, 0 to 2 ** precision - 1."""
    sampling: Sequence[tuple[int, int]] = ()
    """Across and down; one block each if empty."""
    precision: int = 8
    restart: int = 0
    """Units between restart markers."""
    header: bytes = JFIF
    frame: int = 0xC0
    late_height: bool = False
    interleaved: bool = True
    tail: bytes = b""
    """Between the picture and its end."""

    @property
    def _step(self) -> int:
        """Of the quantiser; the tables know no larger coefficients."""
        return 2 << (self.precision - 8)

    def __bytes__(self) -> bytes:
        height, width = self.planes[0].shape
        sampling = self.sampling or [(1, 1)] * len(self.planes)
        told = struct.pack(">BHHB", self.precision, 0 if self.late_height else height, width, len(sampling))
        told += b"".join(bytes([1 + index, a << 4 | d, 0]) for index, (a, d) in enumerate(sampling))
        out = b"\xff\xd8" + self.header + segment(0xDB, bytes([0, *[self._step] * 64])) + segment(self.frame, told)
        out += segment(0xC4, b"\0" + b"".join(_DC)) + segment(0xC4, b"\x10" + b"".join(_AC))
        out += segment(0xDD, struct.pack(">H", self.restart)) if self.restart else b""
        out += b"".join(self._scans(sampling))
        return out + (segment(0xDC, struct.pack(">H", height)) if self.late_height else b"") + self.tail + b"\xff\xd9"

    def _scans(self, sampling: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        most = [max(own) for own in zip(*sampling, strict=True)]
        units = [-(-side // (8 * factor)) for side, factor in zip(self.planes[0].shape[::-1], most, strict=True)]
        blocks = [self._blocks(plane, own, most, units) for plane, own in zip(self.planes, sampling, strict=True)]
        if self.interleaved and len(blocks) > 1:
            yield self._scan(blocks, list(range(len(blocks))), sampling, units)
            return
        for index, (across, down) in enumerate(sampling):
            height, width = self.planes[0].shape
            own = [math.ceil(width * across / most[0] / 8), math.ceil(height * down / most[1] / 8)]
            yield self._scan(blocks, [index], [(1, 1)] * len(blocks), own)

    def _blocks(
        self, plane: Plane, own: tuple[int, int], most: Sequence[int], units: Sequence[int]
    ) -> np.ndarray[Any, Any]:
        """Quantised coefficients, ``(rows, columns, 64)``; a sample is its area's mean, or the nearest."""
        height, width = (8 * unit * factor for unit, factor in zip(units[::-1], most[::-1], strict=True))
        full = np.pad(plane, ((0, height - plane.shape[0]), (0, width - plane.shape[1])), mode="edge")
        rows, columns = 8 * units[1] * own[1], 8 * units[0] * own[0]
        if height % rows or width % columns:
            small = full[(np.arange(rows) * height) // rows][:, (np.arange(columns) * width) // columns]
        else:
            small = full.reshape(rows, height // rows, columns, width // columns).mean((1, 3))
        blocks = (small - (1 << (self.precision - 1))).reshape(rows // 8, 8, columns // 8, 8).swapaxes(1, 2)
        return (
            np.rint(_COSINES @ blocks @ _COSINES.T / self._step)
            .astype(int)
            .reshape(rows // 8, columns // 8, 64)[..., _ORDER]
        )

    def _scan(
        self, blocks: Sequence[Any], which: Sequence[int], sampling: Sequence[tuple[int, int]], units: Sequence[int]
    ) -> bytes:
        bits, before = _Bits(), dict.fromkeys(which, 0)
        for count, (y, x) in enumerate(np.ndindex(units[1], units[0])):
            if self.restart and count and count % self.restart == 0:
                bits.mark(0xD0 + (count // self.restart - 1) % 8)
                before = dict.fromkeys(which, 0)
            for index in which:
                across, down = sampling[index]
                for v, h in np.ndindex(down, across):
                    before[index] = bits.block(blocks[index][y * down + v, x * across + h], before[index])
        head = bytes([len(which)]) + b"".join(bytes([1 + index, 0]) for index in which) + b"\0\x3f\0"
        return segment(0xDA, head) + bits.done()


def flat_lossless(width: int, height: int, channels: int) -> bytes:
    """Grey without a DCT, T.81 annex H: no sample differs from its left neighbour, which takes a bit each."""
    components = [bytes([1 + index]) for index in range(channels)]
    frame = struct.pack(">BHHB", 8, height, width, channels) + b"".join(own + b"\x11\0" for own in components)
    scan = bytes([channels]) + b"".join(own + b"\0" for own in components) + b"\1\0\0"
    table = bytes([0, 1, *[0] * 15, 0])
    header = segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan)
    return b"\xff\xd8" + header + bytes(width * height * channels // 8 + 1) + b"\xff\xd9"


def _codes(table: tuple[bytes, bytes]) -> dict[int, tuple[int, int]]:
    found, code, symbols = {}, 0, iter(table[1])
    for length, count in enumerate(table[0], 1):
        for _ in range(count):
            found[next(symbols)] = code, length
            code += 1
        code <<= 1
    return found


class _Bits:
    """Entropy-coded data; T.81 annex F.1.2."""

    _dc, _ac = _codes(_DC), _codes(_AC)

    def __init__(self) -> None:
        self._out, self._bits = b"", ""

    def block(self, coefficients: Sequence[int], before: int) -> int:
        self._put(self._dc, 0, int(coefficients[0]) - before)
        last = max((at for at in range(64) if coefficients[at]), default=0)
        run = 0
        for at in range(1, last + 1):
            if coefficients[at] == 0:
                run += 1
                continue
            while run > 15:
                self._put(self._ac, 15, 0)
                run -= 16
            self._put(self._ac, run, int(coefficients[at]))
            run = 0
        if last < 63:
            self._put(self._ac, 0, 0)
        return int(coefficients[0])

    def _put(self, codes: dict[int, tuple[int, int]], run: int, number: int) -> None:
        size = abs(number).bit_length()
        code, length = codes[run << 4 | size]
        self._bits += f"{code:0{length}b}"
        if size:
            self._bits += f"{number if number > 0 else number + (1 << size) - 1:0{size}b}"

    def mark(self, marker: int) -> None:
        self._out = self.done() + b"\xff" + bytes([marker])
        self._bits = ""

    def done(self) -> bytes:
        whole = self._bits + "1" * (-len(self._bits) % 8)
        data = bytes(int(whole[at : at + 8], 2) for at in range(0, len(whole), 8))
        return self._out + data.replace(b"\xff", b"\xff\0")
