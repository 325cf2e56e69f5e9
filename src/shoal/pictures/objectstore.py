"""The object store: where pictures are, and who may open it."""

from __future__ import annotations

import atexit
import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cache
from time import sleep
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from shoal.errors import ConfigurationError, Unavailable
from shoal.runtime import intake, private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from shoal.service import spec
    from shoal.service.home import Home

_RETRY: Final[RetryConfig] = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=1)},
}
"""Enough for a stale connection. Who waits for a store that is away has a deadline of its own."""
_CONNECT_TIMEOUT: Final = timedelta(seconds=5)
_LAST_MOMENT_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Credentials:
    """An S3 access key; the secret stays out of ``repr``."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def load_credentials(path: Path) -> Credentials:
    """Reads the JSON that ``create_credentials`` wrote.

    Raises:
        ConfigurationError: unreadable, open to others, or not such a file.
    """
    try:
        found = intake.parse_json(private.read(path))
        credentials = Credentials(found["access_key_id"], found["secret_access_key"])
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        # Without its cause, which would quote the file.
        raise ConfigurationError(f"{path}: expected JSON with access_key_id and secret_access_key") from None
    if not all(isinstance(value, str) and value for value in asdict(credentials).values()):
        raise ConfigurationError(f"{path}: access_key_id and secret_access_key must be texts, not empty")
    return credentials


def create_credentials(path: Path) -> Credentials:
    """Writes a new random key (20 characters) and secret (40) to ``path``, mode 0600.

    Raises:
        ConfigurationError: the file exists already or can't be written.
    """
    key = base64.b32encode(secrets.token_bytes(10)).decode()
    credentials = Credentials(f"SHOL{key}", secrets.token_urlsafe(30))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be created: {error.strerror}") from error
    with os.fdopen(file, "w") as writer:
        json.dump(asdict(credentials), writer)
    return credentials


def open_configured(service: spec.Service, home: Home, endpoint: str | None = None) -> ObjectStore:
    """The object store of ``service``; a managed one with the credentials that ``shoal up`` made, at ``endpoint``.

    Raises:
        ConfigurationError: as ``load_credentials`` and ``open_store``.
    """
    settings = service.object_store
    ours = settings.credentials_file is not None or settings.runs_locally
    credentials = load_credentials(home.credentials_file(service)) if ours else None
    return open_store(settings, credentials, endpoint)


def open_store(
    settings: spec.ObjectStore,
    credentials: Credentials | None,
    endpoint: str | None,
    client: ClientConfig | None = None,
) -> ObjectStore:
    """Opens the store of a service file; connects when it is first used.

    Args:
        settings: The service file's ``object_store``.
        credentials: For ``s3://``. None: the cloud's usual chain (environment, instance role).
        endpoint: The address of an S3 server, in place of ``settings.endpoint``, such as a local one's.
        client: obstore's time limits, where its own don't do: 30 s a request, body included.

    Raises:
        ConfigurationError: the url or a setting makes no sense to the store.
    """
    _outlast_calls()
    url = settings.url
    if url.startswith("memory://"):
        return MemoryStore()
    try:
        if url.startswith("file://"):
            return from_url(url, mkdir=True)
        limits: ClientConfig = {"connect_timeout": _CONNECT_TIMEOUT, **(client or {})}
        if not url.startswith("s3://"):
            return from_url(url, retry_config=_RETRY, client_options=limits)
        return from_url(url, retry_config=_RETRY, **_s3_options(settings, credentials, endpoint, limits))
    except (BaseError, ValueError, OSError) as error:
        raise ConfigurationError(f"object_store.url {url}: {_reason(error)}") from None


@cache
def _outlast_calls() -> None:
    """Gives obstore's threads a moment when the process ends.

    They let go of a call's objects after it was answered, for which they need the interpreter: one that is on its way
    out by then aborts the whole process, in a third of the runs of a command whose call failed.
    """
    atexit.register(sleep, _LAST_MOMENT_SECONDS)


def _s3_options(
    settings: spec.ObjectStore, credentials: Credentials | None, endpoint: str | None, client: ClientConfig
) -> dict[str, Any]:
    address = endpoint or settings.endpoint
    options: dict[str, Any] = {"region": settings.region, "client_options": client}
    if address is not None:
        client["allow_http"] = address.startswith("http://")
        options |= {"endpoint": address, "virtual_hosted_style_request": False}
    return options | (asdict(credentials) if credentials else {})


async def presign_puts(store: ObjectStore, keys: Sequence[str], lifetime_seconds: float) -> list[str]:
    """URLs that let anyone PUT the objects of ``keys``, in that order, for so long.

    Raises:
        ConfigurationError: a store of this kind has no such URLs.
        Unavailable: the store's credentials can't be had now.
    """
    if not isinstance(store, obstore.store.S3Store | obstore.store.GCSStore | obstore.store.AzureStore):
        raise ConfigurationError("object_store.url: presigned uploads need an s3://, gs:// or az:// store")
    try:
        return list(await obstore.sign_async(store, "PUT", keys, timedelta(seconds=lifetime_seconds)))
    except BaseError as error:
        raise Unavailable("the object store can't sign uploads now; try again later") from error


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
