"""Where the service is, the key or token for it and whom to trust: what was said, else what ``shoal up`` wrote down."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import grpc

from shoal.errors import ConfigurationError
from shoal.runtime import intake, trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.service.home import Home

_MOST_BYTES = 2**16
"""Of a token's file: more fits into no header."""
START = "`shoal up` starts a local service"


class Trust(TypedDict):
    """Options of ``AsyncClient``: who calls, and whom it trusts."""

    api_key: str | None
    token: Callable[[], str] | None
    credentials: grpc.ChannelCredentials | None


@dataclass(frozen=True, slots=True)
class Connection:
    """A target, and an API key, which never shows in a ``repr``, or a token's file."""

    target: str
    api_key: str | None = field(repr=False)
    ca_file: Path | None = None
    """PEM: the authorities that may vouch for the service. None: the public ones."""
    token_file: Path | None = None
    """Holds a token in the place of a key; read anew as the token ends."""

    def options(self) -> Trust:
        """For ``AsyncClient``. Raises what ``credentials`` raises."""
        token = None if self.token_file is None else partial(_token, self.token_file)
        return {"api_key": self.api_key, "token": token, "credentials": self.credentials()}

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


def find_connection(
    target: str | None,
    api_key: str | None,
    home: Home,
    ca_file: Path | None = None,
    token_file: Path | None = None,
) -> Connection:
    """Completes what is given from the running local service's ``run/client.json``.

    The local service's key goes to the local service only, never to another target.

    Raises:
        ConfigurationError: one is missing and there is nothing to complete it from, or somebody else may have written
            that; there are both a key and a token; the token can't be read.
    """
    if token_file is not None:
        if api_key:
            raise ConfigurationError("--token-file and --api-key ($SHOAL_API_KEY): give one of them, not both")
        _token(token_file)
    if target and (api_key or token_file):
        return Connection(target, api_key, ca_file, token_file)
    local = _local(home)
    if local is None:
        missing = "service" if not target else "API key"
        way_out = "--target and --api-key" if not target else "--api-key"
        variables = "$SHOAL_TARGET and $SHOAL_API_KEY; a token: --token-file"
        raise ConfigurationError(f"no {missing}: {START}, or give {way_out} (or {variables})")
    if target and target != local.target:
        raise ConfigurationError(f"no API key for {target}: give --api-key, set $SHOAL_API_KEY, or give --token-file")
    known = None if token_file else api_key or local.api_key
    return Connection(local.target, known, ca_file or local.ca_file, token_file)


def _token(path: Path) -> str:
    try:
        return intake.read(path, _MOST_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{path}: the token can't be read: {why}") from None


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
