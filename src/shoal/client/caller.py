"""Who calls: what goes with each call, and what is done where the service doesn't take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from shoal.client.token import TokenCaller
from shoal.errors import ConfigurationError
from shoal.service import identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shoal.client.channel import Metadata
    from shoal.client.token import Token

T = TypeVar("T")


class Caller(Protocol):
    """Somebody whom the service knows."""

    @property
    def api_key(self) -> str:
        """What messages carry; empty: they need none."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What each call and stream carries."""
        ...

    async def attempt(self, call: Callable[[float], Awaitable[T]], left_seconds: float) -> T:
        """Answers what ``call`` answers, given the seconds it has left; raises what it raises."""
        ...

    async def close(self) -> None:
        """Ends what goes on in the background."""
        ...


class KeyCaller:
    """Has an API key."""

    def __init__(self, api_key: str) -> None:
        """Raises ConfigurationError for what can be no key."""
        if not api_key.isascii() or not api_key.isprintable() or not api_key.strip():
            raise ConfigurationError("api_key: expected printable ASCII, as `shoal keys create` prints it")
        self.api_key = api_key
        self.metadata: Metadata = ((identity.HEADER, api_key),)

    def __repr__(self) -> str:
        return "api_key=…"

    async def attempt(self, call: Callable[[float], Awaitable[T]], left_seconds: float) -> T:
        """Calls."""
        return await call(left_seconds)

    async def close(self) -> None:
        """Does nothing."""


def caller_of(api_key: str | None, token: Token | None) -> Caller:
    """Whoever has one of the two.

    Raises:
        ConfigurationError: neither or both are given, or it can be none.
    """
    if (api_key is None) == (token is None):
        raise ConfigurationError("expected either api_key, as `shoal keys create` prints it, or the token of an issuer")
    return KeyCaller(api_key) if api_key is not None else TokenCaller(token or "")
