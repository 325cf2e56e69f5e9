"""What callers hand to the client's methods, checked before anything is sent; each raises InvalidRequest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from shoal.errors import InvalidRequest
from shoal.pictures.reference import canonical_uuid

if TYPE_CHECKING:
    from enum import StrEnum

    ChoiceT = TypeVar("ChoiceT", bound=StrEnum)

_NAME = re.compile(r"[\x21-\x7e]{1,256}")
_OLDEST_SECONDS = 2**31
"""68 years: as much as a cache has to understand (RFC 9111, 1.2.2)."""


def image_reference(image: object) -> str:
    """The uuid that ``image`` names, in lower case."""
    try:
        return canonical_uuid(str(image) if isinstance(image, str | UUID) else "")
    except InvalidRequest:
        shown = repr(image)[:80]
        text = f"{shown}: expected a Path, the bytes of a picture, or the uuid of an uploaded one"
        raise InvalidRequest(text) from None


def model_name(name: str) -> str:
    """``name``, if a model can be called so."""
    if not _NAME.fullmatch(name):  # it could not travel as metadata
        raise InvalidRequest(f"model {name[:64]!r}: expected the name of a model, such as 'efficientnet-lite0'")
    return name


def choice(kind: type[ChoiceT], value: str) -> ChoiceT:
    """The member of ``kind`` that ``value`` names."""
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(f"{value!r}: expected one of {', '.join(kind)}") from None


def positive(concurrency: int) -> int:
    """``concurrency``, if it is 1 or more."""
    if concurrency < 1:
        raise InvalidRequest(f"concurrency {concurrency}: expected 1 or more")
    return concurrency


def max_age_us(max_age_seconds: float) -> int:
    """``max_age_seconds`` in microseconds, if it can be an age."""
    if not 0 <= max_age_seconds <= _OLDEST_SECONDS:  # NaN isn't
        raise InvalidRequest(f"max_age_seconds {max_age_seconds}: expected 0 to {_OLDEST_SECONDS:,}")
    return round(max_age_seconds * 1e6)
