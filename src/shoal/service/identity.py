"""Who calls, as the router verified it: what travels behind it in the place of the API key.

::

    <key id>?v=1&owner=<owner>&prefix=<prefix>&sha256=<of the key>&rps=<its calls a second>[&priority=bulk][&json=1]
    token:<issuer>:<owner>?v=1&owner=…&prefix=…&sha256=<of all keys>&rps=…[&priority=bulk]&exp=<Unix time>&json=1
    <the caller's id>?v=1&owner=…&prefix=…&sha256=<of all keys>&rps=0.0[&priority=bulk]&json=1&pipeline=<name>

The router alone decides about keys; who stands behind it needs no fresh copy of them, since the message's own key is
held against the digest. It is not signed, so it is worth what the network behind the router is worth: a worker that
others can reach looks keys up itself (``shoal.worker.access``).
The form is a URL's, which Envoy cuts down to the id for whoever needs no more.
The digest is half a SHA-256: enough to know a key again, and still nothing for a log.
A caller with a token has no key. The router writes its identity from the token's claims, and in the place of a key's
digest one of all keys, which shows those who look keys up that it was the router who wrote.
A pipeline calls models on behalf of its caller, who needs leave for the pipeline alone and whose rate was counted
there. It writes the third form, which says so, without the caller's key and with no limit.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode

from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.service.api_keys import Key

HEADER: Final = "x-api-key"
"""Carries the identity behind the router. The router, an older one too, removes the caller's own header of this name
before it sets this one, so no caller can slip one in."""
CLIENT_HEADER: Final = "x-client-id"
"""Carries the key's id behind the router, never its secret; a caller's own header of this name is removed."""
MAX_LENGTH: Final = 1024
"""Characters of an identity; a longer text is none."""
MODELS_HEADER: Final = "x-shoal-token-models"
"""Tells the console which models a token may call: names, and beginnings with a ``*``; not there: all.

For each caller with a token the router sets or removes it."""
JWT_CALLER: Final = "token:"
"""Begins the id of a caller with a token; a key's id has no colon."""

_VERSION: Final = "1"
_MOST_FIELDS: Final = 16
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """One key, without its secret."""

    key_id: str
    owner: str
    prefix: str
    """Goes before the uuid in an object's name."""
    digest: str = field(repr=False)
    """The key's ``digest``."""
    requests_per_second: float | None = None
    """The key's limit; 0: none. None: an older router doesn't tell it."""
    priority: Priority = Priority.INTERACTIVE
    """The key's."""
    json: bool = False
    """The message needs no key of its own: it came as JSON, from a caller without a stub, or its caller has a token."""
    expires: float | None = None
    """When the caller's token ends, in Unix time. None: it has a key."""
    pipeline: str = ""
    """Which pipeline calls on the caller's behalf. Empty: it is the caller itself."""

    @classmethod
    def of(cls, key: Key) -> Self:
        """What the router passes on for ``key``."""
        return cls(key.id, key.owner, key.prefix, digest(key.key), key.requests_per_second, key.priority)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What ``write`` wrote; None for anything else, a later version's too."""
        key_id, _, query = text.partition("?")
        if not query or len(text) > MAX_LENGTH:
            return None
        try:
            fields = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_FIELDS))
            rate, expires = _number(fields.get("rps")), _number(fields.get("exp"))
        except ValueError:
            return None
        if fields.get("v") != _VERSION or not (key_id and fields.get("owner") and fields.get("sha256")):
            return None
        return cls(
            key_id,
            fields["owner"],
            fields.get("prefix", ""),
            fields["sha256"],
            rate,
            _priority(fields),
            fields.get("json") == "1",
            expires,
            fields.get("pipeline", ""),
        )

    def write(self) -> str:
        """Fit for a header."""
        told = {"v": _VERSION, "owner": self.owner, "prefix": self.prefix, "sha256": self.digest}
        if self.requests_per_second is not None:
            told["rps"] = repr(self.requests_per_second)
        if self.priority is not Priority.INTERACTIVE:
            told["priority"] = self.priority
        if self.pipeline:  # the router writes this one of other callers
            told |= {"json": "1", "pipeline": self.pipeline}
        return f"{self.key_id}?{urlencode(told)}"

    def by_pipeline(self, name: str, prefix: str, proof: str) -> Self:
        """Whom a pipeline calls for.

        Args:
            name: The pipeline's.
            prefix: Of the key in the caller's message, which may be another one of the owner's.
            proof: A ``KeyRing``'s, for those who look keys up.
        """
        return replace(
            self,
            prefix=prefix,
            digest=proof or self.digest,
            requests_per_second=0.0,
            json=True,
            expires=None,
            pipeline=name,
        )

    def is_of(self, secret: str) -> bool:
        """Whether ``secret`` is this key."""
        return bool(secret) and hmac.compare_digest(self.digest.encode(), digest(secret).encode())

    def is_of_token(self) -> bool:
        """Whether the caller has a token in the place of a key."""
        return self.key_id.startswith(JWT_CALLER)

    def is_proven(self, proof: str) -> bool:
        """Whether no key of the caller's is in it, and whoever wrote it knows ``proof``, a ``KeyRing``'s."""
        keyless = self.is_of_token() or bool(self.pipeline)
        return keyless and bool(proof) and hmac.compare_digest(self.digest.encode(), proof.encode())


class CallerId(NamedTuple):
    """Who calls, as the batcher passes it on to workers."""

    key_id: str = ""
    """The key's id, as workers, logs and metrics show it; empty: the owner is shown."""
    identity: str = ""
    """The text of the router's ``Identity``, for the worker alone: it holds a digest of the key."""

    def __repr__(self) -> str:
        return f"CallerId({self.key_id!r})"


NOBODY: Final = CallerId()


def rate_limit(key_id: str) -> str:
    """What a caller is told of whose limit it is: an owner's tokens share one."""
    return "the rate limit of this token's owner" if key_id.startswith(JWT_CALLER) else "this API key's rate limit"


def _number(text: str | None) -> float | None:
    """A rate or a time. Raises ValueError for what is neither."""
    if text is None:
        return None
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


def _priority(fields: Mapping[str, str]) -> Priority:
    """A level that only a later version knows counts as the usual one: nobody is held back for a word unknown."""
    return Priority.BULK if fields.get("priority") == Priority.BULK else Priority.INTERACTIVE


def digest(secret: str) -> str:
    """A digest of an API key, in 22 characters that a header may have."""
    whole = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    return base64.urlsafe_b64encode(whole[:_DIGEST_BYTES]).decode().rstrip("=")
