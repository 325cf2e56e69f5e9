"""Label files: one label a line, in the order of the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.runtime import intake

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_BYTES: Final = 2**22


def read(path: Path) -> tuple[str, ...]:
    r"""The labels in ``path``: UTF-8, with or without a byte order mark; ``\n`` and ``\r\n`` alone end a line.

    An empty line is a label without a name, as it is to Triton; those at the end are none.

    Raises:
        OSError: it can't be read, is no regular file, or is larger than ``LARGEST_BYTES``.
        ValueError: it isn't text in UTF-8; the message says where.
    """
    try:
        text = intake.read_text(path, LARGEST_BYTES)
    except UnicodeDecodeError as error:
        raise ValueError(f"{intake.not_utf8(error)}; save it as UTF-8") from None
    if (nul := text.find("\0")) >= 0:
        line = text.count("\n", 0, nul) + 1
        raise ValueError(f"a NUL byte in line {line}; is it UTF-16, or no text at all? Save it as UTF-8")
    return tuple(intake.lines(text.rstrip("\n")))
