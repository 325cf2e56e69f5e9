"""Keeps Envoy's files current while keys, models and the service file change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from shoal.batching.peers import ask_all
from shoal.console.status import Known
from shoal.errors import ConfigurationError
from shoal.router import certificate, config, key_sources
from shoal.router.keyfile import KeyFile
from shoal.router.model_list import PIPELINE, Described
from shoal.router.model_names import Folder, fit
from shoal.router.served import POLL_SECONDS, ServedModels, Unserved, served
from shoal.router.tracing import Export
from shoal.runtime.envoy_admin import admin_socket, prepare
from shoal.runtime.files import replace_file
from shoal.runtime.logs import Seldom
from shoal.runtime.watch import changes
from shoal.service import spec
from shoal.service.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shoal.router.model_names import ModelNames
    from shoal.runtime.endpoint import Endpoint
    from shoal.service.api_keys import KeyRing
    from shoal.service.home import Home
    from shoal.service.spec import Service

_log = logging.getLogger(__name__)
_seldom = Seldom(_log)
_T = TypeVar("_T")


class Input(Generic[_T]):
    """One thing that the configuration is made of: its last good value, and where it comes from.

    Each input is kept on its own, so that a fault in the service file does not hold up the revocation of a key.
    """

    def __init__(self, read: Callable[[], _T]) -> None:
        self._read = read
        self.value = read()

    def refresh(self) -> None:
        """Reads it again. A broken one is logged, and the last good value stays."""
        try:
            self.value = self._read()
        except (ConfigurationError, OSError) as error:
            _log.warning("the router keeps what it had: %s", error)


class ConfigKeeper:
    """Renders Envoy's configuration into a folder, once and then after every change of its inputs.

    Another place for the keys file, the certificate or the model store in the service file takes effect at the next
    start. So does the watch of the folder of a token issuer's file; the file itself is read at once.
    """

    def __init__(
        self,
        *,
        service_file: Path | None,
        topology_file: Path,
        home: Home,
        models: ModelNames | None = None,
        keys: KeyFile | None = None,
    ) -> None:
        """Reads every input once.

        Args:
            service_file: None: the default service.
            topology_file: Where each part listens.
            home: Has room for Envoy's files, and says where keys and models lie unless the service file does.
            models: What there is to route to. None: what the model store's folder holds.
            keys: Where the keys are. None: in the file that the service file names.

        Raises:
            ConfigurationError: an input is wrong.
        """
        self.folder = home.run.absolute() / "router"
        self.admin = admin_socket(self.folder)
        self.routes = asyncio.Event()
        """Set once workers were asked, there is a model to route to, and all that the service file names are listed."""
        self.rendered = asyncio.Event()
        """Set by each change of the files."""
        self.service: Input[Service] = Input(lambda: spec.load(service_file))
        self.topology = Input(lambda: Topology.load(topology_file))
        keys_file = home.keys_file(self.service.value)
        self._keys = keys or KeyFile(keys_file)
        self.keys: Input[KeyRing] = Input(self._keys.read)
        tls = self.service.value.router.tls
        self.certificate = Input(lambda: certificate.check(self.service.value.router.tls))
        self.sources = Input(lambda: key_sources.read(self.service.value.router.tokens))
        store = self.service.value.model_store
        self._unserved = Unserved()
        self._reported = ServedModels()
        self._described: dict[str, Described] = {}
        """What workers say of each model."""
        self._asked = False
        self._absent: set[str] = set()
        """Models that the service file names and that aren't listed."""
        self._told = ""
        self._names = models or Folder(home.model_store(self.service.value), store.poll_seconds)
        self.models = Input(self._models)
        files = [service_file, topology_file, keys_file, *(certificate.CertificateFiles.of(tls) if tls else ())]
        files += key_sources.files(self.service.value.router.tokens)
        self._folders = sorted({path.absolute().parent for path in files if path is not None})

    def render(self) -> list[str]:
        """Brings the files up to date and returns the names of those that changed."""
        prepare(self.folder)
        self._judge()
        return write(self.folder, self.files(self.folder))

    def files(self, folder: Path) -> dict[str, str]:
        """What the files should be if they lie in ``folder``: name to text."""
        known = self.known()
        return config.render(
            known.service,
            known.topology,
            known.keys,
            known.models,
            folder=folder,
            unserved=known.unserved,
            described=self._described | dict.fromkeys(known.service.pipelines, PIPELINE),
            sources=self.sources.value,
            export=self._export(),
        )

    def redacted(self, text: str) -> str:
        """What is told of the files, without secrets."""
        return config.redact(text, self.keys.value, self.service.value.router.tokens, self._export())

    def _export(self) -> Export:
        return Export.of(self.service.value.observe.tracing, os.environ)

    def known(self) -> Known:
        """What the router knows at this moment, for the console."""
        return Known(
            service=self._reported.adopt(self.service.value),
            topology=self.topology.value,
            keys=self.keys.value,
            models=self.models.value,
            unserved=self._unserved.names(monotonic()),
        )

    async def run(self) -> None:
        """Renders after every change, until it is cancelled."""
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_notify(changed, self._folders))
            tasks.create_task(self._names.follow(changed.set))
            tasks.create_task(self._follow_workers(changed.set))
            tasks.create_task(self._keys.follow(changed.set))
            while True:
                await changed.wait()
                changed.clear()
                self._refresh()

    def _models(self) -> list[str]:
        """What is listed; what the service file names, listed or not; and what workers serve that are ready."""
        service = self.service.value
        listed = self._names.names(service) | service.elsewhere
        for name in service.pipelines.keys() & listed:
            _seldom.say(name, "the model %s isn't served: a pipeline has its name; rename one of them", name)
        self._reported.list(listed)
        meant = {pool: service.named_models(pool) for pool in service.pools}
        # Of a Triton of somebody else's there is no listing.
        ours = (names for pool, names in meant.items() if service.pools[pool].triton_url is None)
        self._absent = set().union(*ours) - listed
        routed = listed.union(*map(fit, meant.values())) | self._reported.models(service)
        return sorted(routed.union(service.pipelines))

    def _judge(self) -> None:
        """Sets ``routes``, or says why not."""
        if self.routes.is_set() or not self._asked:
            return
        trouble = ""
        if self._absent:
            trouble = f"the service file names {', '.join(sorted(self._absent))}, and no such model is listed"
        elif not any(self.service.value.pool_of(model) for model in self.models.value):
            trouble = "no model is there to route to"
        if not trouble:
            self.routes.set()
        elif trouble != self._told:
            _log.error("not ready: %s; where models come from may be misspelt, or empty yet", trouble)
        self._told = trouble

    async def _follow_workers(self, changed: Callable[[], None]) -> None:
        """Asks workers now and then what they serve."""
        known: frozenset[str] = frozenset()
        while True:
            told: dict[str, Described] = {}
            answers = await served(self.topology.value.pools, partial(proven, told=told))
            now = monotonic()
            news = bool(told.items() - self._described.items())
            self._described |= told
            if self._reported.update(answers) or news or not self._asked:
                self._asked = True
                changed()
            self._unserved.update(self._reported.adopt(self.service.value), self.models.value, answers, now)
            if (names := self._unserved.names(now)) != known:
                if new := names - known:
                    _log.warning("no worker serves %s: calls are refused until one does", ", ".join(sorted(new)))
                known = names
                changed()
            await asyncio.sleep(POLL_SECONDS)

    def _refresh(self) -> None:
        for source in (self.service, self.topology, self.keys, self.certificate, self.sources, self.models):
            source.refresh()
        try:
            names = self.render()
        except (ConfigurationError, OSError) as error:
            _log.warning("the router keeps its configuration: %s", error)
            return
        if names:
            self.rendered.set()
            _log.info("new configuration: %s", ", ".join(names))


async def proven(peers: Endpoint, told: dict[str, Described]) -> frozenset[str] | None:
    """The models that workers at ``peers`` serve which are ready, and into ``told`` what they say. None: nobody is."""
    seen = await ask_all(peers)
    told |= {each.name: Described.of(each) for one in seen for each in one.described}
    return frozenset().union(*(each.models for each in seen)) if seen else None


async def _notify(changed: asyncio.Event, folders: list[Path]) -> None:
    async with contextlib.aclosing(changes(*folders)) as moments:
        async for _ in moments:
            changed.set()


def write(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Moves each file that differs into place, since a move is what Envoy watches for.

    The folder gets mode 0700 and each file 0600: there are API keys in them.

    Returns:
        The names of the files that changed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    changed = [name for name, text in files.items() if _content(folder / name) != text]
    for name in changed:
        replace_file(folder / name, files[name])
    return changed


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
