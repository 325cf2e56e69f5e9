"""A profile on disk, brought up to date after each measurement, so that an interrupted one goes on where it was."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shoal import __version__
from shoal.errors import ConfigurationError
from shoal.profile.machine import this_machine
from shoal.profile.records import Profile, read, write

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from shoal.profile.grid import Grid
    from shoal.profile.records import Cell, Round, Setting, Subject


class Book:
    """Keeps the measurements of a grid."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Reads nothing yet.

        Args:
            path: The profile's file.
            force: Whether what is there is replaced, at the first measurement.
        """
        self._path = path
        self._force = force
        self._grid: Grid | None = None
        self._profile: Profile | None = None

    @property
    def profile(self) -> Profile:
        """What is measured so far; only once the book is open."""
        assert self._profile is not None
        return self._profile

    def open(self, grid: Grid, subject: Subject, command: str) -> None:
        """Takes up what is there.

        Raises:
            ConfigurationError: it is no profile, or of another subject or machine.
        """
        new = Profile(
            subject=subject,
            machine=this_machine(),
            versions={"shoal": __version__, "python": platform.python_version()},
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            load_average=round(os.getloadavg()[0], 2),
        )
        old = None if self._force else read(self._path)
        if old is not None:
            self._check("subject", old.subject, new.subject)
            self._check("machine", old.machine, new.machine)
        self._grid = grid
        self._profile = new if old is None else new.model_copy(update={"cells": old.cells})

    def add(self, setting: Setting, measured: Round, executed_batch: float | None) -> None:
        """Keeps a measurement. Raises OSError where the disk is full, say; the file is then as it was."""
        assert self._grid is not None
        self._profile = self.profile.with_round(self._grid.cell(setting), measured, executed_batch)
        write(self._path, self._profile)

    def cells(self) -> list[Cell]:
        """Those of the grid that there are."""
        return [] if self._grid is None else self._grid.cells(self.profile)

    def _check(self, what: str, old: BaseModel, new: BaseModel) -> None:
        before, now = old.model_dump(), new.model_dump()
        differences = [f"{name} {before[name]}, now {now[name]}" for name in now if before[name] != now[name]]
        if differences:
            raise ConfigurationError(
                f"{self._path} is of another {what} ({'; '.join(differences)}): --force starts anew, "
                "another --output keeps both"
            )
