"""Where the service is, and the key for it: what was said, else what ``shoal up`` wrote down."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from shoal.home import Home

START = "`shoal up` starts a local service"


@dataclass(frozen=True, slots=True)
class Connection:
    """A target, and an API key that never shows in a ``repr``."""

    target: str
    api_key: str = field(repr=False)


def find_connection(target: str | None, api_key: str | None, home: Home) -> Connection:
    """Completes ``target`` and ``api_key`` from the running local service's ``run/client.json``.

    The local service's key goes to the local service only, never to another target.

    Raises:
        ConfigurationError: one is missing and there is nothing to complete it from.
    """
    if target and api_key:
        return Connection(target, api_key)
    local = _local(home)
    if local is None:
        missing = "service" if not target else "API key"
        way_out = "--target and --api-key" if not target else "--api-key"
        raise ConfigurationError(f"no {missing}: {START}, or give {way_out} (or $SHOAL_TARGET and $SHOAL_API_KEY)")
    if target and target != local.target:
        raise ConfigurationError(f"no API key for {target}: give --api-key or set $SHOAL_API_KEY")
    return Connection(local.target, api_key or local.api_key)


def _local(home: Home) -> Connection | None:
    path = home.client
    try:
        found = json.loads(path.read_bytes())
        return Connection(str(found["target"]), str(found["api_key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path}: can't be read; `shoal up` writes it anew") from None
