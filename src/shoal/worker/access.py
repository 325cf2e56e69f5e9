"""Whether a request may be served, as the worker sees it: the router has decided about ``x-api-key`` already.

What the router verified comes along (``shoal.service.identity``), and the message's own key, which survives batching,
is held against that: no copy of the keys is asked, so no copy can be stale. A message that came as JSON, or whose
caller has a token, needs no key of its own. Another key in the message must be one of the same owner; it is looked up
here. So are both where an older router names the key and no more, and where others than
the router reach the worker, so that no identity is believed: there it reads the router's own keys file, and has no
copy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.errors import ConfigurationError, PermissionDenied, Unauthenticated
from shoal.service.api_keys import load_keys
from shoal.service.identity import MAX_LENGTH, Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.service.api_keys import Key, KeyRing


_REMEMBERED: Final = 1024
"""Identities that were read lately: all requests of a key bring the same text, whose reading takes 10 us."""


class Grant(NamedTuple):
    """On whose behalf a request is served."""

    owner: str
    prefix: str
    """Goes before the uuid in an object's name."""


class Access:
    """Answers with the keys of the moment; ``ring`` may be replaced at any time.

    Args:
        ring: The keys.
        newest: The keys as the router may know them already, None if ``ring`` came from there. Given: an identity says
            no more than the key's id, and both keys are looked up.
    """

    def __init__(self, ring: KeyRing, newest: Callable[[], KeyRing | None] | None = None) -> None:
        self._ring = ring
        self._former = ""
        """What showed the router's hand before the keys' last change, of which it may learn later."""
        self._newest = newest

    @property
    def ring(self) -> KeyRing:
        """The keys."""
        return self._ring

    @ring.setter
    def ring(self, ring: KeyRing) -> None:
        if ring != self._ring:
            self._ring, self._former = ring, self._ring.proof

    def grant(self, key_id: str, identity: str, api_key: str, model: str | None = None) -> Grant:
        """Whose request it is.

        Args:
            key_id: The id of the key that the router verified.
            identity: What the router says of that key; empty where it is an older one.
            api_key: The message's own.
            model: What it asks for. None: nothing that keys are limited to.

        Raises:
            Unauthenticated: the message's key is not valid, or another owner's than the router's.
            PermissionDenied: the model is not among those of the message's key.
        """
        verified = _identity(identity)
        if self._newest is None:
            return self._grant(key_id, verified, api_key, model)
        try:
            return self._looked_up(key_id, verified, api_key, model)
        except (Unauthenticated, PermissionDenied):
            ring = self._newest()
            if ring is None:
                raise
            self.ring = ring
        return self._looked_up(key_id, verified, api_key, model)

    def rate(self, key_id: str, identity: str) -> float:
        """The calls a second of the key that the router verified; 0: no limit. Ask once ``grant`` has let it in."""
        verified = _identity(identity)
        believed = verified is not None and (self._newest is None or verified.is_of_token())
        if verified is not None and believed and verified.requests_per_second is not None:
            return verified.requests_per_second
        key = self.ring.by_id(key_id)
        return key.requests_per_second if key else 0.0

    def came_as_json(self, identity: str) -> bool:
        """Whether the router says so of a call with this identity."""
        verified = _identity(identity)
        return verified is not None and verified.json

    def is_pipelines(self, identity: str) -> bool:
        """Whether a pipeline calls on somebody's behalf: it asks about parts of a picture right behind the whole."""
        verified = _identity(identity)
        return verified is not None and bool(verified.pipeline)

    def _grant(self, key_id: str, verified: Identity | None, api_key: str, model: str | None) -> Grant:
        if verified is not None and (verified.is_of(api_key) or (verified.json and not api_key)):
            return Grant(verified.owner, verified.prefix)  # the router has checked the model
        return self._looked_up(key_id, verified, api_key, model, owner=verified.owner if verified else None)

    def _looked_up(
        self, key_id: str, shown: Identity | None, api_key: str, model: str | None, owner: str | None = None
    ) -> Grant:
        """By the keys alone; ``owner``: who called, where that is believed."""
        if shown is not None and (shown.is_proven(self.ring.proof) or shown.is_proven(self._former)):
            if not api_key:
                return Grant(shown.owner, shown.prefix)  # as above
            owner = shown.owner
        key = self.ring.by_secret(api_key) if api_key else self._key_of(shown)
        if key is None:
            raise Unauthenticated("the message's api_key is missing or unknown")
        if (owner or self._owner_of(key_id)) != key.owner:
            raise Unauthenticated("the message's api_key and the x-api-key metadata belong to different owners")
        return _within(key, model)

    def _key_of(self, shown: Identity | None) -> Key | None:
        """A caller of JSON names its key in the header alone: the router's digest of it stands for the key."""
        if shown is None or not shown.json:
            return None
        key = self.ring.by_id(shown.key_id)
        return key if key and shown.is_of(key.key) else None

    def _owner_of(self, key_id: str) -> str:
        header = self.ring.by_id(key_id)
        if header is None:
            raise Unauthenticated("the x-api-key metadata is missing or no longer valid")
        return header.owner


class Memory:
    """What ``Access`` granted to items of one message: most are of one key, and were let in for the same reason."""

    def __init__(self, access: Access, model: str) -> None:
        self._access = access
        self._model = model
        self._granted: dict[tuple[str, str, str], Grant] = {}
        self.came_as_json = access.came_as_json
        self.is_pipelines = access.is_pipelines

    def grant(self, key_id: str, identity: str, api_key: str) -> Grant:
        """As ``Access.grant``."""
        asked = key_id, identity, api_key
        found = self._granted.get(asked)
        if found is None:
            found = self._granted[asked] = self._access.grant(*asked, self._model)
        return found


class NewestKeys:
    """The keys in the file at ``path``, where a refusal should not rest on older ones.

    Router and worker watch one file, and the router may see a change first. The file is read again only if it is
    another than before, so refusals cost nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()

    def __call__(self) -> KeyRing | None:
        """None: it is as it was, or can't be read, which ``watch_keys`` reports."""
        try:
            status = self._path.stat()
            mark = status.st_ino, status.st_mtime_ns, status.st_size
            if mark == self._seen:
                return None
            self._seen = mark
            return load_keys(self._path)
        except (OSError, ConfigurationError):
            return None


def _identity(text: str) -> Identity | None:
    """``Identity.parse``, once a text."""
    return _remembered(text) if len(text) <= MAX_LENGTH else None


_remembered = lru_cache(_REMEMBERED)(Identity.parse)


def _within(key: Key, model: str | None) -> Grant:
    if model is not None and not key.allows(model):
        raise PermissionDenied(f"this key may not call model {model!r}")
    return Grant(key.owner, key.prefix)
