"""A folder that a command writes pictures to, each under a name of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class OutputFolder:
    """Names what is written after the picture that it is about; it replaces neither that nor another's.

    Args:
        folder: Made if it is not there.
        option: Which option of the command names it.

    Raises:
        ConfigurationError: it can't be made.
    """

    def __init__(self, folder: Path, option: str) -> None:
        self.option = option
        self._folder = folder
        self._used: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{option} {folder}: {error.strerror}") from None

    def path(self, image: Path, suffix: str) -> Path:
        """``<folder>/<name><suffix>``; pictures of the same name are numbered."""
        name, number = image.stem, 1
        while name in self._used:
            number += 1
            name = f"{image.stem}-{number}"
        self._used.add(name)
        return self._folder / f"{name}{suffix}"
