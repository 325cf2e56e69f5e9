"""How a picture is named: the uuid in a reference, and the key of its object in the store.

A key is ``<prefix><uuid>.jpg``, whatever the picture's format is; the prefix is the owner's. A uuid is written as
RFC 9562 shows it, ``8-4-4-4-12`` hexadecimal digits; in requests and keys they are in lower case, so that a picture
has one name only.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import uuid4

from shoal.errors import InvalidRequest

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_LENGTH: Final = 36
_SUFFIX: Final = ".jpg"
_EXAMPLE: Final = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
_SHOWN_CHARACTERS: Final = 64
"""How much of a refused text an error quotes: it stays one line."""


def new_uuid() -> str:
    """A random uuid, in lower case."""
    return str(uuid4())


def canonical_uuid(text: str) -> str:
    """A uuid that a person or a program gave, in lower case.

    Raises:
        InvalidRequest: not the text of a uuid, in either case.
    """
    found = text.lower()
    if not _UUID.fullmatch(found):
        raise InvalidRequest(f"{_shown(text)} is not a UUID, such as {_EXAMPLE}")
    return found


def object_key(prefix: str, image_uuid: str) -> str:
    """The key of a picture: ``<prefix><image_uuid>.jpg``.

    Raises:
        InvalidRequest: not a uuid in lower case.
    """
    if not _UUID.fullmatch(image_uuid):
        raise InvalidRequest(f"image_uuid {_shown(image_uuid)} is not a UUID in lower case, such as {_EXAMPLE}")
    return f"{prefix}{image_uuid}{_SUFFIX}"


def is_object_key(key: str) -> bool:
    """Whether ``key`` can be one that ``object_key`` made."""
    name = key.rpartition("/")[2]
    return name.endswith(_SUFFIX) and _UUID.fullmatch(name.removesuffix(_SUFFIX)) is not None


def uuid_in(key: str) -> str:
    """The uuid in a key that ``object_key`` made; the prefix, which tells of the owner, is left out."""
    return key.rpartition("/")[2].removesuffix(_SUFFIX)[-_UUID_LENGTH:]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
