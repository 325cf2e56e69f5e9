"""Keeps a local model repository in line with what is published: one object, told when to look.

A set of files is gathered beside the repository, its checksums and its configuration are checked, and only then does
the model lead to it. Whatever goes wrong before that leaves the model as it was.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shoal.errors import ConfigurationError, NotFound, Unavailable
from shoal.modelstore.check import check_folder
from shoal.modelstore.publishing import manifest
from shoal.modelstore.publishing.fetch_model import fetch, wanted
from shoal.modelstore.publishing.mirror import Synced
from shoal.modelstore.publishing.remote import NoSpace
from shoal.observe import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from shoal.modelstore.publishing.mirror import Mirror
    from shoal.modelstore.publishing.remote import Mark, Remote
    from shoal.triton.client import LoadedVersion

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 600.0
"""Between tries to load what the Triton refused."""
_REASON_LENGTH = 1000
"""What one line tells of a refusal, in characters: a backend's own reason may be a stack trace."""


class Control(Protocol):
    """What loads models explicitly: a Triton; see ``TritonClient``."""

    async def index(self) -> Mapping[str, Sequence[LoadedVersion]]:
        """What is loaded."""
        ...

    async def load(self, model: str) -> None:
        """Loads what the repository holds now."""
        ...

    async def unload(self, model: str) -> None:
        """Unloads all versions."""
        ...


class Synchronizer:
    """Brings a mirror in line with a remote, model by model.

    Args:
        remote: What is published.
        mirror: The repository.
        selects: Of the names of models, those to keep here.
        control: A Triton in explicit mode; None: whoever reads the repository watches it.
        remove: Whether a model that is no longer published, or selected, is removed here.
        most: The bytes that the files of one model may have; None: as the disk has room for.
    """

    def __init__(
        self,
        remote: Remote,
        mirror: Mirror,
        *,
        selects: Callable[[Iterable[str]], Iterable[str]],
        control: Control | None = None,
        remove: bool = False,
        most: int | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._remote = remote
        self._mirror = mirror
        self._selects = selects
        self._control = control
        self._remove = remove
        self._most = most
        self._now = now
        self._seen: dict[str, Mapping[int, Mark]] = {}
        """What was published of a model when we were last done with it, well or badly."""
        self._refused: dict[str, str] = {}
        """The models whose publication is damaged or faulty: why."""
        self._short: set[str] = set()
        """The models that the disk had no room for."""
        self._told: set[str] = set()
        """The models that the Triton was told to load since we, or it, started."""
        self._again: dict[str, _Again] = {}
        """The models that the Triton refused, maybe for a passing reason such as memory that others had."""
        self._turn = asyncio.Lock()

    async def synchronize(self) -> None:
        """Looks once, and does what is to do. A model that can't be had leaves the others alone.

        Raises:
            Unavailable: the store or the Triton is away; what is here stays.
            NotFound, ConfigurationError: the store as a whole can't be used: no bucket, no permission.
        """
        async with self._turn:
            published = await self._remote.published()
            chosen = set(self._selects(published))
            for model in sorted(chosen):
                if self._seen.get(model) != published[model] or self._is_due(model):
                    await self._renew(model, published[model])
            if self._remove:
                for model in sorted(set(self._mirror.models()) - chosen):
                    await self._withdraw(model)
            self._drop_unselected(chosen)
            await self._load_missing()
            self._mirror.completed(Synced(source=self._remote.name, published=len(published), refused=self._refused))
            if not self._short:
                metrics.SYNC_SUCCESS.set_to_current_time()

    @property
    def refused(self) -> frozenset[str]:
        """The models whose publication is damaged or faulty."""
        return frozenset(self._refused)

    async def reload(self) -> None:
        """Has the Triton load what it lacks: it was restarted, or away when it was told.

        Raises:
            Unavailable: it is away.
        """
        async with self._turn:
            await self._load_missing()

    async def _renew(self, model: str, marks: Mapping[int, Mark]) -> None:
        try:
            changed = await self._fetch(model, marks)
        except (NoSpace, OSError) as error:
            if model not in self._short:  # told once, and tried again at each look: it is this machine's, and may pass
                self._refuse(model, str(error))
            self._short.add(model)
            return
        except Unavailable:
            raise
        except (ConfigurationError, NotFound) as error:
            self._refuse(model, str(error))
        except Exception as error:
            # Whatever somebody's publication brings about, the other models are served.
            log.exception("model %s as published brings about a fault of ours", model)
            self._refuse(model, f"{type(error).__name__}: {error}")
        else:
            self._refused.pop(model, None)
            self._again.pop(model, None)
            if changed:
                metrics.SYNC_SWITCHES.labels(model).inc()
                log.info("model %s: versions %s", model, ", ".join(map(str, changed)))
        self._seen[model] = marks
        self._short.discard(model)

    async def _fetch(self, model: str, marks: Mapping[int, Mark]) -> list[int]:
        """Answers the versions that are here now; empty where nothing changed."""
        files = await wanted(self._remote, model, marks)
        digest, before = manifest.digest(files), self._mirror.current(model)
        if digest == before:
            return []
        if not self._mirror.has(model, digest):
            known = await asyncio.to_thread(self._mirror.known, model)
            folder = self._mirror.staging(model, digest)
            await fetch(self._remote, model, files, folder, known=known, progress=_Metered(), most=self._most)
            await asyncio.to_thread(self._accept, model, digest, files)
        self._mirror.switch(model, digest)
        await self._load(model, before)
        await asyncio.to_thread(self._mirror.sweep, model)
        return sorted({version for path in files if (version := manifest.version_of(path)) is not None})

    def _accept(self, model: str, digest: str, files: Mapping[str, manifest.FileEntry]) -> None:
        report = check_folder(self._mirror.staging(model, digest))
        if report.errors:
            self._mirror.discard(model, digest)
            faults = (f"{fault.field or fault.file.name}: {fault.message}" for fault in report.errors)
            raise ConfigurationError("; ".join(faults))
        try:
            self._mirror.accept(model, digest, files)
        except OSError as error:
            raise NoSpace(f"{self._mirror.sets}: can't be written: {error.strerror}") from error

    def _refuse(self, model: str, reason: str) -> None:
        stays = "what is here stays" if self._mirror.current(model) else "it isn't served"
        told = " ".join(reason.split())[:_REASON_LENGTH]
        log.error("model %s as published is refused, %s: %s", model, stays, told)
        metrics.SYNC_REFUSED.labels(model).inc()
        self._refused[model] = told

    async def _withdraw(self, model: str) -> None:
        if self._control is not None:
            await self._control.unload(model)
        self._mirror.withdraw(model)
        self._told.discard(model)
        await asyncio.to_thread(self._mirror.sweep, model)
        log.info("model %s is removed", model)

    def _drop_unselected(self, chosen: set[str]) -> None:
        for model in self._seen.keys() - chosen:
            del self._seen[model]
        self._refused = {model: reason for model, reason in self._refused.items() if model in chosen}
        self._again = {model: again for model, again in self._again.items() if model in chosen}
        self._short &= chosen
        metrics.SYNC_MODELS.labels("refused").set(len(self._refused))
        metrics.SYNC_MODELS.labels("here").set(len(self._mirror.models()))

    # The Triton.

    async def _load(self, model: str, before: str | None) -> None:
        """Loads what ``model`` leads to now; if Triton refuses, it leads to ``before`` again."""
        if self._control is None:
            return
        try:
            await self._control.load(model)
        except Unavailable:
            return  # _load_missing sees to it
        except (ConfigurationError, NotFound):
            self._put_off(model)
            if before is None:
                self._mirror.withdraw(model)
            else:
                self._mirror.switch(model, before)
            raise
        self._told.add(model)

    async def _load_missing(self) -> None:
        if self._control is None:
            return
        index = await self._control.index()
        for model in self._mirror.models():
            # A model that couldn't be loaded has a state as well, and isn't tried over and over.
            tried = model in self._told and any(version.state for version in index.get(model, ()))
            if tried and not self._is_due(model):
                continue
            self._told.add(model)
            try:
                await self._control.load(model)
            except (ConfigurationError, NotFound) as error:
                self._refuse(model, str(error))
                self._put_off(model)
                if self._mirror.back(model):
                    await self._load(model, None)
            else:
                self._again.pop(model, None)

    def _put_off(self, model: str) -> None:
        """After a pause that doubles, a load that was refused is tried again."""
        before = self._again.get(model)
        pause = min(2 * before.pause, LONGEST_PAUSE_SECONDS) if before else FIRST_PAUSE_SECONDS
        self._again[model] = _Again(self._now() + pause, pause)

    def _is_due(self, model: str) -> bool:
        again = self._again.get(model)
        return again is not None and self._now() >= again.at


class _Again(NamedTuple):
    """When to try again, in seconds of the clock, and how long that is after the last try."""

    at: float
    pause: float


class _Metered:
    """Counts what comes from the store."""

    def expect(self, size: int) -> None:
        """Nothing: what is still to come is no metric."""

    def advance(self, size: int) -> None:
        """Counts ``size`` bytes as come."""
        metrics.SYNC_BYTES.inc(size)
