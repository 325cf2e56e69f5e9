"""What a picture says of itself: format, size, orientation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

_TRANSPOSED: Final = 5
"""From this EXIF orientation on, rows are columns."""
_WITH_DCT: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})


class PictureFormat(StrEnum):
    """The formats that Shoal reads."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


class PictureSize(NamedTuple):
    """In pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a picture says of itself."""

    format: PictureFormat
    width: int
    """Pixels as stored, before the orientation is applied."""
    height: int
    orientation: int = 1
    """EXIF's, 1 to 8; 1 is upright."""
    channels: int = 3
    """Number stored: 1 grey, 3 colour, 4 CMYK (JPEG) or colour and alpha."""
    scans: int = 1
    """Passes over the picture; above 1 in progressive JPEGs only. Data after the picture may be counted in."""
    coding: int = 0
    """A JPEG's frame marker, 0xC0 to 0xCF: how it is coded (ITU-T T.81, table B.1)."""
    doubt: str = ""
    """Why a JPEG of this kind may not be decodable, should it turn out so."""

    @property
    def has_dct(self) -> bool:
        """Whether it is a JPEG that can be decoded at a smaller size; a lossless one can't."""
        return self.coding in _WITH_DCT

    @property
    def transposed(self) -> bool:
        """Whether the upright picture's width is the stored one's height."""
        return self.orientation >= _TRANSPOSED

    @property
    def upright(self) -> PictureSize:
        """The size of the picture as people see it."""
        return PictureSize(self.height, self.width) if self.transposed else PictureSize(self.width, self.height)
