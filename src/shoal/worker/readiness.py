"""Whether a worker serves what its pool is meant to serve, and what it says where it doesn't.

Meant are the models that the service file names, and of those that are there, the ones that others of the pool serve;
with nobody to ask, all that are there. What others serve and isn't there was taken out of the store on purpose, unless
the others look into another store, or for other names: then it may be a typing error, and the model is meant, too.

A worker that was ready once stays so: what breaks afterwards breaks everywhere, and a new version that can't be loaded
leaves the old one. So it is new workers that have to show what they can, before the old ones go.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from shoal.batching.peers import Seen
    from shoal.service.spec import Service


@dataclass(frozen=True, slots=True)
class Available:
    """What is there for a pool, served or not."""

    place: str
    """Where models come from, for messages."""
    empty: bool = False
    """Nothing is there, for this pool or any other."""
    troubles: Mapping[str, str] = field(default_factory=dict)
    """The pool's models that are there and can't be served as they are: why."""


@dataclass(frozen=True, slots=True)
class Others:
    """What ready workers of the pool serve, but for what our service file gives to another pool."""

    proven: frozenset[str] = frozenset()
    """At any time since we ask: who left since has still shown it."""
    served: frozenset[str] = frozenset()
    """When somebody was there last."""
    differing: frozenset[str] = frozenset()
    """Those of ``served`` that workers of another origin serve."""


def others(seen: Iterable[Seen], before: Others | None, service: Service, pool: str) -> Others | None:
    """With what is ``seen`` now; None where nobody was there yet. ``service`` and ``pool`` are our own."""
    present = list(seen)
    if not present:
        return before
    own = origin(service, pool)
    served = frozenset().union(*(each.models for each in present))
    # Who says no origin is older: as long as there were no origins, what isn't there was wanted by nobody.
    differing = frozenset().union(*(each.models for each in present if each.origin not in {"", own}))
    ours = frozenset(name for name in served if service.pool_of(name) in {None, pool})
    return Others(ours | (before.proven if before else frozenset()), ours, ours & differing)


def missing(
    *, served: AbstractSet[str], named: AbstractSet[str], found: Available, others: Others | None
) -> tuple[str, ...]:
    """Why a worker isn't ready, a line each; nothing: it is.

    Args:
        served: The models that it serves.
        named: Those that the service file names for its pool, without a pattern.
        found: What is there.
        others: What others of the pool serve. None: nobody is there to ask.
    """
    troubles = found.troubles
    meant = named | (troubles.keys() if others is None else (troubles.keys() & others.proven) | others.differing)
    if not served and others is not None:
        meant |= others.served  # nobody takes out everything, and keeps the pool
    lines = [_line(name, troubles, found.place, named=name in named) for name in sorted(meant - served)]
    if not served and not lines:
        empty = f"{found.place} holds no model; 'shoal model add' or 'shoal model push' brings one"
        return unserved(found, served) or ((empty,) if found.empty else ())
    return tuple(lines)


def unserved(found: Available, served: AbstractSet[str]) -> tuple[str, ...]:
    """The models that are there and not served, with the reason, a line each."""
    troubles = found.troubles
    return tuple(_line(name, troubles, found.place) for name in sorted(troubles.keys() - served))


def origin(service: Service, pool: str) -> str:
    """A digest of the settings that say which models ``pool`` has and where they come from.

    Not the settings themselves: whoever asks a worker need not learn addresses.
    """
    store, settings = service.model_store, service.pools[pool]
    said = (store.url, store.endpoint, store.path, settings.triton_url, sorted(settings.models))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _line(name: str, troubles: Mapping[str, str], place: str, *, named: bool = False) -> str:
    said = "the service file names it, and it isn't in"
    if not named:
        said = "ready workers of the pool serve it, and here it fits no pattern or isn't in"
    reason = troubles.get(name) or f"{said} {place}"
    return f"model {name}: {' '.join(reason.split())}"
