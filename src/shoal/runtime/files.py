"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE = 0o600


def replace_file(path: Path, content: str | bytes, mode: int | None = PRIVATE) -> None:
    """Moves a file with ``content`` to ``path``: on disk by then, and nobody ever reads half of it.

    Args:
        path: Where, in a folder that exists.
        content: The bytes, or a text to be written as UTF-8.
        mode: The new file's permission bits; those of a file that it replaces don't count. None: as the umask has it.

    Raises:
        OSError: it can't be written there. What was there still is, and nothing lies beside it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o666 if mode is None else PRIVATE)  # private from the first byte on
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None and mode != PRIVATE:
                os.fchmod(descriptor, mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
