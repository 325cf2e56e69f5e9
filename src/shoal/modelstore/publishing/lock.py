"""One process at a time at a folder."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def alone(file: Path, what: str) -> Iterator[None]:
    """Holds a lock on ``file``, made if missing; the system lets it go when this process ends, however it ends.

    Raises:
        ConfigurationError: another process holds it, or the file can't be made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("w")
    except OSError as error:
        raise ConfigurationError(f"{file}: can't be made: {error.strerror}") from error
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(f"{file}: {what} runs here already") from error
        yield
