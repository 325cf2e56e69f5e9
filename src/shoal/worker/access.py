"""Whether a request may be served: the payload's key, the header's key and the model, checked once more at the worker.

The router has checked ``x-api-key`` and put the key's id into ``x-client-id``; the payload's key survives batching.
Both must belong to one owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from shoal.keys import Key, KeyRing


class Access:
    """Answers with the keys of the moment; ``ring`` may be replaced at any time."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring

    def owner_key(self, client_id: str, api_key: str) -> Key:
        """The payload's key, if it is valid and of the same owner as the header's.

        Raises:
            Unauthenticated: it isn't.
        """
        key = self.ring.by_secret(api_key) if api_key else None
        if key is None:
            raise Unauthenticated("the message's api_key is missing or unknown")
        header = self.ring.by_id(client_id)
        if header is None:
            raise Unauthenticated("the x-api-key metadata is missing or no longer valid")
        if header.owner != key.owner:
            raise Unauthenticated("the message's api_key and the x-api-key metadata belong to different owners")
        return key

    def admit(self, client_id: str, api_key: str, model: str) -> Key:
        """As ``owner_key``, and the key may call ``model``.

        Raises:
            Unauthenticated: the keys are not valid or not one owner's.
            PermissionDenied: the model is not among the key's.
        """
        key = self.owner_key(client_id, api_key)
        if not key.allows(model):
            raise PermissionDenied(f"this key may not call model {model!r}")
        return key
