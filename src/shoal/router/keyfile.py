"""Where the router has its keys from: a file; in a pod, a Secret's mounted copy or, sooner, the Secret itself."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

from shoal.errors import ConfigurationError
from shoal.runtime.files import replace_file
from shoal.service.api_keys import load_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.router.secret import SecretWatch
    from shoal.service.api_keys import KeyRing

_FIRST_SECONDS: Final = 5.0
"""How long a start waits for the Secret itself, before the mounted copy is taken."""

log = logging.getLogger(__name__)


class KeyFile:
    """A keys file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> KeyRing:
        """The keys. Raises ConfigurationError as ``load_keys``."""
        return load_keys(self.path)

    async def look(self) -> None:
        """Makes sure that ``read`` knows the newest."""

    async def follow(self, changed: Callable[[], None]) -> None:
        """Calls ``changed`` for what a watch of the file's folder doesn't show. Runs until it is cancelled."""


class WatchedSecret(KeyFile):
    """A Secret: followed at the API, and mounted.

    While it is followed, the mounted copy counts for nothing, since it may be older. Once it isn't, the copy counts
    again from its next change on. So an old key never comes back.

    Args:
        mounted: The copy that the kubelet keeps.
        watch: Follows the Secret.
        kept: Where what the API has is put, at mode 0600: read like any keys file.
    """

    def __init__(self, mounted: Path, watch: SecretWatch, kept: Path) -> None:
        super().__init__(mounted)
        self._watch = watch
        self._kept = kept
        self._ring: KeyRing | None = None
        self._copy = b""
        """The mounted copy's content when the Secret was last known."""

    def read(self) -> KeyRing:
        """The Secret's keys while it is followed, else those of the mounted copy.

        Raises ConfigurationError as ``load_keys``.
        """
        if self._ring is not None and not self._watch.current and self._mounted() != self._copy:
            self._ring = None
        return super().read() if self._ring is None else self._ring  # one without keys lets nobody in

    async def look(self) -> None:
        """Waits until the API has told the Secret, for 5 s at most: then the mounted copy has to do."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS), aclosing(self._watch.contents()) as contents:
                async for content in contents:
                    if self._take(content):
                        return

    async def follow(self, changed: Callable[[], None]) -> None:
        """Calls ``changed`` for each new content of the Secret that holds keys."""
        async with aclosing(self._watch.contents()) as contents:
            async for content in contents:
                if self._take(content):
                    changed()

    def _take(self, content: str) -> bool:
        """Whether there are keys in it."""
        self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._kept, content)
        try:
            self._ring = load_keys(self._kept)
        except ConfigurationError as error:
            log.warning("keys stay as they were: %s", error)
            return False
        self._copy = self._mounted()
        return True

    def _mounted(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError:
            return b""
