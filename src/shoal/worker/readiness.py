"""Whether a worker serves what its pool is meant to serve, and what it says where it doesn't.

Meant are the models that the service file names, and of those that are there, the ones that others of the pool serve;
with nobody to ask, all that are there. A worker that was ready once stays so: what breaks afterwards breaks everywhere,
and a new version that can't be loaded leaves the old one. So it is new workers that have to show what they can, before
the old ones go.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from shoal import private
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from shoal.home import Home
    from shoal.spec import Service
    from shoal.topology import Endpoint


@dataclass(frozen=True, slots=True)
class Found:
    """What is there for a pool, served or not."""

    place: str
    """Where models come from, for messages."""
    empty: bool = False
    """Nothing is there, for this pool or any other."""
    troubles: Mapping[str, str] = field(default_factory=dict)
    """The pool's models that are there and can't be served as they are: why."""


def missing(
    *, served: AbstractSet[str], named: AbstractSet[str], found: Found, proven: AbstractSet[str] | None
) -> tuple[str, ...]:
    """Why a worker isn't ready, a line each; nothing: it is.

    Args:
        served: The models that it serves.
        named: Those that the service file names for its pool, without a pattern.
        found: What is there.
        proven: Those that others of the pool serve. None: nobody is there to ask.
    """
    troubles = found.troubles
    meant = named | (troubles.keys() if proven is None else troubles.keys() & proven)
    lines = [_line(name, troubles, found.place) for name in sorted(meant - served)]
    if not served and not lines:
        empty = f"{found.place} holds no model; 'shoal model add' or 'shoal model push' brings one"
        return unserved(found, served) or ((empty,) if found.empty else ())
    return tuple(lines)


def unserved(found: Found, served: AbstractSet[str]) -> tuple[str, ...]:
    """The models that are there and not served, with the reason, a line each."""
    troubles = found.troubles
    return tuple(_line(name, troubles, found.place) for name in sorted(troubles.keys() - served))


def named(service: Service, pool: str) -> frozenset[str]:
    """The models that the service file names for ``pool``: in its list, or with overrides of their own."""
    return frozenset([*service.exact_models(pool), *service.models_of(pool, service.models)])


def _line(name: str, troubles: Mapping[str, str], place: str) -> str:
    reason = troubles.get(name) or f"the service file names it, and it isn't in {place}"
    return f"model {name}: {' '.join(reason.split())}"


class Report(BaseModel):
    """What a worker says of itself, for the other commands of its machine."""

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
        private.replace(file, self.model_dump_json())

    @classmethod
    def load(cls, home: Home, worker: Endpoint) -> Report:
        """What the worker said last; one that said nothing yet has no trouble."""
        try:
            return cls.model_validate_json(private.read(_file(home, worker)))
        except (OSError, ValidationError, ConfigurationError):
            return cls()


def forget(home: Home) -> None:
    """Takes away what the workers of an earlier service said."""
    shutil.rmtree(home.run / "workers", ignore_errors=True)


def _file(home: Home, worker: Endpoint) -> Path:
    return home.run / "workers" / f"{worker.port}.json"
