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


class WorkerReport(BaseModel):
    """Whether a worker is ready, and why not."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ready: bool = True
    models: tuple[str, ...] = ()
    """Those that it serves."""
    reasons: tuple[str, ...] = ()
    """Why it isn't ready, or what else it doesn't serve."""

    def save(self, home: Home, worker: Endpoint) -> None:
        """Leaves it where ``load`` looks."""
        file = _file(home, worker)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, self.model_dump_json())

    @classmethod
    def load(cls, home: Home, worker: Endpoint) -> WorkerReport:
        """What the worker said last; one that said nothing yet has no trouble."""
        try:
            return cls.model_validate_json(private.read(_file(home, worker)))
        except (OSError, ValidationError, ConfigurationError):
            return cls()


def remove_all(home: Home) -> None:
    """Takes away what the workers of an earlier service said."""
    shutil.rmtree(home.run / "workers", ignore_errors=True)


def _file(home: Home, worker: Endpoint) -> Path:
    return home.run / "workers" / f"{worker.port}.json"
