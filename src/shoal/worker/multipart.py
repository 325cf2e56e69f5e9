"""A picture in a form, ``multipart/form-data`` (RFC 7578): what a page's form or ``curl -F`` sends."""

from __future__ import annotations

from email.message import Message
from typing import Final

from shoal.errors import InvalidRequest

FORM: Final = "multipart/form-data"
_MOST_HEADER_BYTES: Final = 4096
OVERHEAD_BYTES: Final = 2 * _MOST_HEADER_BYTES
"""What a form may have beside the picture."""


def only_part(body: bytes, content_type: str) -> bytes:
    """The content of the form's one part.

    Args:
        body: The whole form.
        content_type: Its header, which has the boundary.

    Raises:
        InvalidRequest: it is no form, or has another number of parts.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise InvalidRequest(f"the content-type {FORM} must name its boundary")
    line = b"\r\n--" + boundary.encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(line)
    if len(parts) != 2 or not parts[1].startswith(b"--"):
        raise InvalidRequest(f"the form must have one part, the picture; it has {max(0, len(parts) - 1)}")
    head, found, content = parts[0].partition(b"\r\n\r\n")
    if not found or len(head) > _MOST_HEADER_BYTES:
        raise InvalidRequest("the form's part has no end of its headers")
    return content
