"""Models from a Triton: what the server has ready, asked again and again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from shoal.errors import ConfigurationError, ShoalError, Unavailable
from shoal.modelconfig import keys
from shoal.modelconfig.fault import FaultReport
from shoal.modelstore import reader
from shoal.triton import LOOK_SECONDS, RARELY_SECONDS
from shoal.triton.steer import original
from shoal.worker.readiness import Available
from shoal.worker.sources import Offer, Refusals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from shoal.modelconfig.model import ModelConfig
    from shoal.service.spec import Service
    from shoal.triton.client import TritonClient

log = logging.getLogger(__name__)


class _Foreign(ConfigurationError):
    """A model that says nothing of Shoal, and that the service file doesn't name."""


class TritonSource:
    """What a Triton has ready, or loads when it is asked to."""

    def __init__(self, client: TritonClient, service: Service, pool: str, look_seconds: float = LOOK_SECONDS) -> None:
        """``look_seconds``: how often the server is asked for its models."""
        self._look_seconds = look_seconds
        self._client = client
        self._service = service
        self._pool = pool
        self._messages: dict[str, Any] = {}
        self._offers: dict[str, Offer] = {}
        self._unlabelled: dict[str, str] = {}
        """Models whose labels the server doesn't tell, and why."""
        self._foreign = Refusals()
        """Models that nobody means to be served here."""
        self._refused = Refusals()
        self.found = Available(f"the Triton at {client.url}")

    async def offers(self) -> Mapping[str, Offer]:
        """The server's models that are the pool's and can be served, by name; the server is told to load all of them.

        Raises:
            ShoalError: the server doesn't answer.
        """
        there = await self._client.versions()
        versions = self._mine(there)
        refused, foreign = [], []
        for name, version in versions.items():
            try:
                await self._look(name, version)
            except Unavailable:
                raise
            except _Foreign as error:
                foreign.append(name)
                self._foreign.note(name, str(error))
            except ShoalError as error:
                refused.append(name)
                self._refused.note(name, str(error))
            except Exception as error:  # whatever somebody else's server says of somebody else's model
                log.debug("model %s", name, exc_info=True)
                refused.append(name)
                self._refused.note(name, f"what the server says of it makes no sense: {error!r}")
        self._refused.keep(refused)
        self._foreign.keep(foreign)
        self._offers = {name: offer for name, offer in self._offers.items() if name in versions}
        self.found = Available(self.found.place, not there, dict(self._refused))
        return self._offers

    async def changes(self) -> AsyncGenerator[None]:
        """Yields now and when the server's models or their versions change; it is asked every ``look_seconds``."""
        seen: Mapping[str, int] | None = None
        pause = self._look_seconds
        while True:
            try:
                versions = await self._versions()
                pause = self._look_seconds
            except Unavailable:  # the engine says so, and brings its models back
                versions, pause = seen or {}, self._look_seconds
            except ShoalError:  # likewise
                versions, pause = seen or {}, min(2 * pause, RARELY_SECONDS)
            if versions != seen:
                seen = versions
                yield
            await asyncio.sleep(pause)

    def describe(self, config: ModelConfig) -> Any:  # a protobuf message
        """The configuration from which ``config`` was read."""
        return self._messages[config.name]

    async def _versions(self) -> Mapping[str, int]:
        return self._mine(await self._client.versions())

    def _mine(self, versions: Mapping[str, int]) -> Mapping[str, int]:
        return {name: versions[name] for name in self._service.models_of(self._pool, sorted(versions))}

    async def _look(self, name: str, version: int) -> None:
        """Learns what there is to know of a model."""
        if not version:
            if name in self._offers:
                return  # the engine brings it back, with what it told Triton of it
            await self._client.load(name)
            version = (await self._client.versions()).get(name, 0)
        message = original(await self._client.config(name))
        known = self._offers.get(name)
        if known and known.config.version == version and self._messages[name] == message:
            return
        report = FaultReport(name)
        # Somebody else's model is asked for nothing before it is known to be one for Shoal.
        if reader.from_server(message, version, (), report) is None:
            means_us = keys.TASK in message.parameters or name in self._service.exact_models(self._pool)
            raise (ConfigurationError if means_us else _Foreign)("; ".join(map(str, report.errors)))
        config = reader.from_server(message, version, await self._labels(name, message), report)
        if config is None:
            raise ConfigurationError("; ".join(map(str, report.errors)))
        self._messages[name] = message
        self._offers[name] = Offer(config)

    async def _labels(self, name: str, message: Any) -> tuple[str, ...]:  # a protobuf message
        """None where the server doesn't tell: the model is served without."""
        try:
            return await self._client.labels(name, message)
        except Unavailable:
            raise
        except ShoalError as error:
            if self._unlabelled.get(name) != str(error):
                log.warning("model %s is served without labels: %s", name, error)
            self._unlabelled[name] = str(error)
            return ()
