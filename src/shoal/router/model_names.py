"""Where the router learns which models there are: a model store's folder, the listing of a bucket, or exact names.

A folder or a bucket knows more than the service file: what isn't there yet is answered NOT_FOUND rather than with a
wait for a worker. Where neither can be seen, as with models that are part of an image, the exact names of the pools
are all there is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Protocol

from shoal.errors import ConfigurationError, ShoalError
from shoal.runtime import private
from shoal.runtime.files import replace_file
from shoal.runtime.watch import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from shoal.modelstore.publishing.remote import Remote
    from shoal.service.home import Home
    from shoal.service.spec import Service

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEAST_PAUSE_SECONDS = 1.0


class ModelNames(Protocol):
    """What there is to route to."""

    async def look(self) -> None:
        """Makes sure that there is an answer. Raises ShoalError where there is none."""
        ...

    def names(self, service: Service) -> set[str]:
        """The models there are, or were when they could last be seen."""
        ...

    async def follow(self, changed: Callable[[], None]) -> None:
        """Calls ``changed`` whenever there may be others. Runs until it is cancelled."""
        ...


def choose(service: Service, home: Home) -> ModelNames:
    """The folder if it is there, else the bucket if there is one, else the names.

    Raises:
        ConfigurationError: the bucket's url, a setting or its credentials file is wrong.
    """
    folder = home.model_store(service)
    if folder.is_dir():
        return Folder(folder, service.model_store.poll_seconds)
    if (bucket := service.model_store.bucket) is None:
        return Exact()
    from shoal.modelstore.publishing.remote import Remote  # most routers list no bucket

    return Published(Remote.open(bucket), home.run / "router" / "published.json", service.model_store.poll_seconds)


class Exact:
    """Those that the service file names without a pattern."""

    async def look(self) -> None:
        """There is always an answer."""

    def names(self, service: Service) -> set[str]:
        """All names in the service file that are no patterns."""
        return {name for pool in service.pools for name in service.named_models(pool)}

    async def follow(self, changed: Callable[[], None]) -> None:
        """Returns at once: the service file, which somebody else follows, has them all."""


class Folder:
    """A model store. It is watched, and looked at now and then too: of other machines' writes to NFS nobody is told."""

    def __init__(self, folder: Path, poll_seconds: float) -> None:
        self._folder = folder
        self._poll_seconds = max(poll_seconds, _LEAST_PAUSE_SECONDS)

    async def look(self) -> None:
        """There is always an answer."""

    def names(self, service: Service) -> set[str]:  # noqa: ARG002 - whatever the pools name
        """The folder's models, whatever the pools name."""
        return self._scan()

    async def follow(self, changed: Callable[[], None]) -> None:
        """Calls ``changed`` after each change below the folder, and when a poll finds other models."""
        self._folder.mkdir(parents=True, exist_ok=True)  # nothing can be watched that isn't there
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(changed))
            tasks.create_task(self._poll(changed))

    def _scan(self) -> set[str]:
        """The folders that hold a config.pbtxt and whose names fit a header; what is in them is not read."""
        return fit(path.parent.name for path in self._folder.glob("*/config.pbtxt"))

    async def _watch(self, changed: Callable[[], None]) -> None:
        async with aclosing(changes(self._folder, recursive=True)) as moments:
            async for _ in moments:
                changed()

    async def _poll(self, changed: Callable[[], None]) -> None:
        seen = self._scan()
        while True:
            await asyncio.sleep(self._poll_seconds)
            if (present := await asyncio.to_thread(self._scan)) != seen:
                seen = present
                changed()


class Published:
    """What a bucket lists. The last answer is kept in a file, for a restart while the store is away."""

    def __init__(self, remote: Remote, kept: Path, poll_seconds: float) -> None:
        self._remote = remote
        self._kept = kept
        self._poll_seconds = max(poll_seconds, _LEAST_PAUSE_SECONDS)

    async def look(self) -> None:
        """Lists the bucket, unless an earlier answer was kept. Raises ShoalError if that fails."""
        if self._read() is None:
            await self._list()

    def names(self, service: Service) -> set[str]:  # noqa: ARG002 - whatever the pools name
        """The models of the last answer, whatever the pools name."""
        return self._read() or set()

    async def follow(self, changed: Callable[[], None]) -> None:
        """Lists the bucket every ``poll_seconds``, and calls ``changed`` when it has other models."""
        while True:
            try:
                if await self._list():
                    changed()
            except (ShoalError, OSError) as error:
                _log.warning("the router keeps the models that it knows: %s", error)
            await asyncio.sleep(self._poll_seconds)

    async def _list(self) -> bool:
        """Whether there are others than before."""
        present = fit(await self._remote.published())
        if present == self._read():
            return False
        self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._kept, json.dumps(sorted(present)))
        return True

    def _read(self) -> set[str] | None:
        with suppress(OSError, ValueError, ConfigurationError):
            return set(json.loads(private.read(self._kept)))
        return None


def fit(names: Iterable[str]) -> set[str]:
    """Those that fit a header."""
    return {name for name in names if _NAME.fullmatch(name)}
