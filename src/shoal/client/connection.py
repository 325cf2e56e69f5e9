"""Where the service is, the key for it and whom to trust: what was said, else what ``shoal up`` wrote down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from shoal.errors import ConfigurationError
from shoal.runtime import intake, trust

if TYPE_CHECKING:
    from shoal.service.home import Home

START = "`shoal up` starts a local service"


@dataclass(frozen=True, slots=True)
class Connection:
    """A target, and an API key that never shows in a ``repr``."""

    target: str
    api_key: str = field(repr=False)
    ca_file: Path | None = None
    """PEM: the authorities that may vouch for the service. None: the public ones."""

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What ``AsyncClient`` takes under this name.

        Raises:
            ConfigurationError: ``ca_file`` can't be read or holds no certificate.
        """
        if self.ca_file is None:
            return None
        try:
            authorities = intake.read(self.ca_file, intake.LIST_BYTES)
        except OSError as error:
            raise ConfigurationError(f"{self.ca_file}: can't be read: {error.strerror}") from error
        if b"-----BEGIN CERTIFICATE-----" not in authorities:
            raise ConfigurationError(f"{self.ca_file}: holds no certificate in PEM")
        return grpc.ssl_channel_credentials(authorities)


def find_connection(target: str | None, api_key: str | None, home: Home, ca_file: Path | None = None) -> Connection:
    """Completes what is given from the running local service's ``run/client.json``.

    The local service's key goes to the local service only, never to another target.

    Raises:
        ConfigurationError: one is missing and there is nothing to complete it from, or somebody else may have written
            that.
    """
    if target and api_key:
        return Connection(target, api_key, ca_file)
    local = _local(home)
    if local is None:
        missing = "service" if not target else "API key"
        way_out = "--target and --api-key" if not target else "--api-key"
        raise ConfigurationError(f"no {missing}: {START}, or give {way_out} (or $SHOAL_TARGET and $SHOAL_API_KEY)")
    if target and target != local.target:
        raise ConfigurationError(f"no API key for {target}: give --api-key or set $SHOAL_API_KEY")
    return Connection(local.target, api_key or local.api_key, ca_file or local.ca_file)


def _local(home: Home) -> Connection | None:
    path = home.client
    try:
        content = intake.read(path)
        trust.require_ours(path)
        found = intake.parse_json(content)
        ca_file = Path(found["ca_file"]) if found.get("ca_file") else None
        return Connection(str(found["target"]), str(found["api_key"]), ca_file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path}: can't be read; `shoal up` writes it anew") from None
