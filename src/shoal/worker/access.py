"""Whether a request may be served, as the worker sees it: the router has decided about ``x-api-key`` already.

What the router verified comes along (``shoal.identity``), and the message's own key, which survives batching, is held
against that: no copy of the keys is asked, so no copy can be stale. Another key in the message must be one of the same
owner; it is looked up here. So are both where an older router names the key and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import PermissionDenied, Unauthenticated
from shoal.identity import Identity

if TYPE_CHECKING:
    from shoal.keys import Key, KeyRing


class Grant(NamedTuple):
    """On whose behalf a request is served."""

    owner: str
    prefix: str
    """Goes before the uuid in an object's name."""


class Access:
    """Answers with the keys of the moment; ``ring`` may be replaced at any time."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring

    def grant(self, client_id: str, identity: str, api_key: str, model: str | None = None) -> Grant:
        """Whose request it is.

        Args:
            client_id: The id of the key that the router verified.
            identity: What the router says of that key; empty where it is an older one.
            api_key: The message's own.
            model: What it asks for. None: nothing that keys are limited to.

        Raises:
            Unauthenticated: the message's key is not valid, or another owner's than the router's.
            PermissionDenied: the model is not among those of the message's key.
        """
        verified = Identity.parse(identity)
        if verified is not None and verified.is_of(api_key):
            return Grant(verified.owner, verified.prefix)  # the router has checked the model
        key = self.ring.by_secret(api_key) if api_key else None
        if key is None:
            raise Unauthenticated("the message's api_key is missing or unknown")
        if (verified.owner if verified else self._owner_of(client_id)) != key.owner:
            raise Unauthenticated("the message's api_key and the x-api-key metadata belong to different owners")
        return _within(key, model)

    def _owner_of(self, client_id: str) -> str:
        header = self.ring.by_id(client_id)
        if header is None:
            raise Unauthenticated("the x-api-key metadata is missing or no longer valid")
        return header.owner


def _within(key: Key, model: str | None) -> Grant:
    if model is not None and not key.allows(model):
        raise PermissionDenied(f"this key may not call model {model!r}")
    return Grant(key.owner, key.prefix)
