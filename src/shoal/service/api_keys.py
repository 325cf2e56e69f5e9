"""API keys: who may call, which pictures are theirs and which models they may use.

The file is JSON, ``{"keys": [{"id", "key", "owner", "prefix", "models", "requests_per_second", "priority"}, …]}``. It
holds secrets, so only its owner may read it (mode 0600). A Kubernetes Secret, whose modes the kubelet sets, is known by
its link through ``..data``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shoal.errors import ConfigurationError
from shoal.runtime import intake, private
from shoal.runtime.files import replace_file
from shoal.runtime.priority import Priority
from shoal.runtime.watch import changes
from shoal.service.rates import a_rate_that_envoy_takes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_PREFIX_PATTERN = r"^([A-Za-z0-9._-]+/)*$"

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
"""An id or an owner: fit for a header value, a metric and a folder."""


class Key(BaseModel):
    """One API key. Its secret stays out of ``repr`` and of every error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Label
    """Names the key in logs and commands, and travels as ``x-client-id`` behind the router."""
    key: str = Field(repr=False, pattern=r"^[\x21-\x7e]{16,256}$")
    """The secret that a client sends as ``x-api-key``."""
    owner: Label
    """Whose key it is. An owner may have many."""
    prefix: str = Field(default="", pattern=_PREFIX_PATTERN)
    """Goes before the uuid in an object's name. Left out: ``<owner>/``; empty: the top of the bucket."""
    models: tuple[str, ...] = ("*",)
    """Names, or patterns such as ``resnet*``, of the models that it may call."""
    requests_per_second: float = Field(default=0.0, ge=0, le=1_000_000, allow_inf_nan=False)
    """At each router: calls over it get RESOURCE_EXHAUSTED. A second's worth may come at once. 0: no limit; the
    least is 0.001."""
    priority: Priority = Priority.INTERACTIVE
    """Of its calls, at the most: a call's ``x-priority`` lowers it."""

    @model_validator(mode="before")
    @classmethod
    def _default_prefix(cls, data: Any) -> Any:  # whatever the file holds
        if isinstance(data, dict) and "owner" in data and "prefix" not in data:
            return {**data, "prefix": f"{data['owner']}/"}
        return data

    @field_validator("prefix")
    @classmethod
    def _no_parent(cls, prefix: str) -> str:
        if {".", ".."} & set(prefix.split("/")):
            raise ValueError("must not contain '.' or '..' as a folder")
        return prefix

    @field_validator("requests_per_second")
    @classmethod
    def _rate(cls, rate: float) -> float:
        return a_rate_that_envoy_takes(rate)

    def allows(self, model: str) -> bool:
        """Whether it may call ``model``."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class KeyRing:
    """All keys at one moment; never changes."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_id: dict[str, Key] = {}
        self._by_digest: dict[bytes, Key] = {}
        for key in keys:
            if key.id in self._by_id:
                raise ConfigurationError(f"two keys have the id {key.id!r}; ids must differ")
            if (hashed := _digest(key.key)) in self._by_digest:
                raise ConfigurationError(f"keys {self._by_digest[hashed].id!r} and {key.id!r} have the same secret")
            self._by_id[key.id] = key
            self._by_digest[hashed] = key

    def by_id(self, key_id: str) -> Key | None:
        """The key with this id."""
        return self._by_id.get(key_id)

    def by_secret(self, secret: str) -> Key | None:
        """The key with this secret. Looked up by digest, so its time says nothing about the secrets."""
        key = self._by_digest.get(_digest(secret))
        return key if key and hmac.compare_digest(key.key.encode(), secret.encode()) else None

    @cached_property
    def proof(self) -> str:
        """A digest of all secrets: who writes it knows them. Empty without one, for anybody could make that."""
        return _digest(" ".join(sorted(key.key for key in self))).hex()[:32] if len(self) > 0 else ""

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRing) and self._by_id == other._by_id

    def __hash__(self) -> int:
        return hash(frozenset(self._by_id.values()))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._by_id)})"


def load_keys(path: Path) -> KeyRing:
    """Reads a keys file.

    Raises:
        ConfigurationError: it can't be read, others may read it, or it is not valid. No secret is in the text.
    """
    try:
        text = private.read(path, intake.LIST_BYTES)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such keys file; 'shoal keys create --owner NAME' makes one") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    try:
        return KeyRing(Key.model_validate(entry) for entry in _entries(intake.parse_json(text, unique=True)))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_describe(error)}") from None
    except ValueError:  # its text may quote a secret
        raise ConfigurationError(f"{path}: not JSON in UTF-8, nested too deep, or with a name twice") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def create(
    path: Path,
    owner: str,
    *,
    models: Iterable[str] = ("*",),
    requests_per_second: float = 0.0,
    prefix: str | None = None,
    priority: Priority = Priority.INTERACTIVE,
) -> Key:
    """Adds a new random key to the file at ``path``, which is made if need be.

    Raises:
        ConfigurationError: the file or a value is wrong.
    """
    fields = {
        "id": f"key-{secrets.token_hex(6)}",
        "key": f"shoal_{secrets.token_urlsafe(32)}",
        "owner": owner,
        "models": tuple(models),
        "requests_per_second": requests_per_second,
        "priority": priority,
    } | ({} if prefix is None else {"prefix": prefix})
    try:
        key = Key.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(_describe(error)) from None
    with _exclusive(path):
        _write(path, KeyRing([*_load_or_empty(path), key]))
    return key


def revoke(path: Path, key_id: str) -> Key:
    """Removes a key from the file at ``path`` and returns it; the running service refuses it within a second.

    Raises:
        ConfigurationError: the file is wrong or has no such key.
    """
    with _exclusive(path):
        ring = load_keys(path)
        key = ring.by_id(key_id)
        if key is None:
            raise ConfigurationError(f"{path}: no key has the id {key_id!r}; 'shoal keys list' shows them")
        _write(path, KeyRing(other for other in ring if other.id != key_id))
    return key


async def watch_keys(path: Path) -> AsyncGenerator[KeyRing]:
    """Yields the present keys, then the new ones after each change of the file.

    A file that is missing or broken is logged and changes nothing: the keys that were last good stay.
    """
    last: KeyRing | None = None
    async with contextlib.aclosing(changes(path.parent)) as moments:
        async for _ in moments:
            try:
                ring = load_keys(path)
            except ConfigurationError as error:
                _log.warning("keys stay as they were: %s", error)
                continue
            if ring != last:
                last = ring
                yield ring


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _entries(document: object) -> list[Any]:
    if isinstance(document, dict) and document.keys() == {"keys"} and isinstance(document["keys"], list):
        return document["keys"]
    raise ConfigurationError('expected {"keys": [...]}')


def _describe(error: ValidationError) -> str:
    """What is wrong, with the field's name and without its value."""
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'key'}: {fault['msg']}" for fault in error.errors())


def _load_or_empty(path: Path) -> KeyRing:
    return load_keys(path) if path.exists() else KeyRing()


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Holds the folder's lock, so that of two writers neither loses the other's key."""
    folder = path.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, ring: KeyRing) -> None:
    replace_file(path, json.dumps({"keys": [_entry(key) for key in ring]}, indent=2) + "\n")


def _entry(key: Key) -> dict[str, Any]:
    """An older version refuses a file with a ``priority``, so one stands there only where it must."""
    usual = key.priority is Priority.INTERACTIVE
    return key.model_dump(mode="json", exclude={"priority"} if usual else None)
