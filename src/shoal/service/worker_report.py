"""What a worker says of itself, left in the home for the other commands of its machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from shoal.errors import ConfigurationError
from shoal.runtime import private
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.home import Home


class ServedModel(BaseModel):
    """A model that a worker serves."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int
    task: str
    """``classification``, ``detection`` or ``segmentation``."""


class WorkerReport(BaseModel):
    """Whether a worker is ready, and why not."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ready: bool = True
    models: tuple[str, ...] = ()
    """Those that it serves."""
    reasons: tuple[str, ...] = ()
    """Why it isn't ready, or what else it doesn't serve."""
    served: dict[str, ServedModel] = {}
    """``models``, with what else is known of each."""
    troubles: dict[str, str] = {}
    """Models that are there for it and that it can't serve as they are: why."""

    def save(self, home: Home, worker: Endpoint) -> None:
        """Leaves it where ``load`` looks."""
        file = _file(home, worker)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, self.model_dump_json())

    @classmethod
    def load(cls, home: Home, worker: Endpoint) -> WorkerReport:
        """What the worker said last; one that said nothing yet has no trouble."""
        return cls._read(home, worker) or cls()

    @classmethod
    def starting(cls, home: Home, worker: Endpoint) -> WorkerReport:
        """The same; one that said nothing yet isn't ready."""
        return cls._read(home, worker) or cls(ready=False, reasons=("its models are being loaded",))

    @classmethod
    def _read(cls, home: Home, worker: Endpoint) -> WorkerReport | None:
        try:
            return cls.model_validate_json(private.read(_file(home, worker)))
        except (OSError, ValidationError, ConfigurationError):
            return None


def remove(home: Home, worker: Endpoint) -> None:
    """Takes away what an earlier worker at this address said."""
    _file(home, worker).unlink(missing_ok=True)


def remove_all(home: Home) -> None:
    """Takes away what the workers of an earlier service said."""
    shutil.rmtree(home.run / "workers", ignore_errors=True)


def _file(home: Home, worker: Endpoint) -> Path:
    return home.run / "workers" / f"{worker.port}.json"
