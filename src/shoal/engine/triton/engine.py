"""Triton, or any server of the v2 gRPC protocol with Triton's extensions, beside this process.

A server that is away is tried again within the deadline. One that was started again knows neither the models nor the
memory: both are made known to it again, by whoever notices first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import weakref
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from shoal.engine.limits import check_size
from shoal.engine.triton.model import TritonModel
from shoal.engine.triton.sharing import Sharing
from shoal.errors import ConfigurationError, Internal, NotFound, ShoalError, Unavailable
from shoal.runtime.one_at_a_time import one_at_a_time
from shoal.triton import LOOK_SECONDS, RARELY_SECONDS
from shoal.triton.client import NotSteered
from shoal.triton.steer import mark_of, steered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from contextlib import AbstractAsyncContextManager

    from shoal.modelconfig.model import ModelConfig
    from shoal.triton.client import TritonClient

    Describe = Callable[[ModelConfig], Any]

_log = logging.getLogger(__name__)

LINGER_SECONDS: Final = 35.0
"""Until a model that was taken out is unloaded, where other processes use the server, too: they learn of it as we do,
and give their batches of it 30 s."""
_MISSES: Final = 2
"""So many answers missing in a row: it is away."""


class TritonEngine:
    """Implements ``shoal.engine.Engine``; its ``load`` also raises Unavailable, where the server is away."""

    def __init__(
        self,
        client: TritonClient,
        describe: Describe,
        *,
        exclusive: bool = False,
        processes: int = 1,
        shares_memory: bool = True,
        look_seconds: float = LOOK_SECONDS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        """Prepares; nothing is called yet.

        Args:
            client: Calls the server; the engine closes it.
            describe: Gives the ``inference.ModelConfig`` message from which a ``ModelConfig`` was read.
            exclusive: Whether the server is our worker's alone: models that we close are unloaded.
            processes: Of our worker, which share the server. A model that one has loaded is loaded for all.
            shares_memory: Whether to try; False sends all tensors in messages.
            look_seconds: How often the server is asked for its models.
            linger_seconds: With several processes, a closed model is unloaded after so long.
        """
        self.client = client
        self._describe = describe
        self._exclusive = exclusive
        self._processes = processes
        self._linger_seconds = linger_seconds
        self._lingering: set[asyncio.Task[None]] = set()
        self._look_seconds = look_seconds
        self._models: weakref.WeakSet[TritonModel] = weakref.WeakSet()
        self._sharing = Sharing(client, wanted=shares_memory)

    async def load(self, config: ModelConfig) -> TritonModel:
        """Has the server load a model and runs a picture.

        Raises:
            ConfigurationError: the server doesn't have it, can't load it, or can't execute it.
            Unavailable: the server is away.
        """
        check_size(config)
        started = monotonic()
        description = self._describe(config)
        mark = _mark(config, description) if self._processes > 1 else ""
        steering = steered(description, config.batching, mark)
        try:
            async with self._alone():
                if not (mark and await self._is_loaded(config.name, mark)):
                    await self.client.load(config.name, steering)
        except NotSteered as error:
            _log.warning("model %s: its own queue settings hold at Triton too: %s", config.name, error)
        except NotFound as error:
            raise ConfigurationError(str(error)) from error
        model = await self.adopt(config, steering)
        self._models.add(model)
        _log.info("model %s version %d is warm after %.2f s", config.name, config.version, monotonic() - started)
        return model

    def _alone(self) -> AbstractAsyncContextManager[None]:
        """While no other process of ours loads."""
        if self._processes == 1:
            return nullcontext()
        return one_at_a_time(f"loads-{self.client.url}")

    async def _is_loaded(self, name: str, mark: str) -> bool:
        """Whether another process of ours has loaded just this.

        Triton loads what it is told to, also what it has: it would start the model anew, beside the one that serves.
        """
        try:
            return mark_of(await self.client.config(name)) == mark
        except NotFound:
            return False

    async def adopt(self, config: ModelConfig, steering: str) -> TritonModel:
        """A model that the server has ready; ``steering``: what to load it with once it is lost. Raises as ``load``."""
        model = TritonModel(config, self._sharing, steering, self._model_closed, self._processes, self._alone)
        try:
            await model.warm()
        except BaseException as error:
            await model.close()
            if isinstance(error, Internal):
                raise ConfigurationError(f"model {config.name!r}: can't be executed: {error}") from error
            raise
        return model

    async def availability(self) -> AsyncIterator[bool]:
        """False once the server is gone, True once it is back with its models, and so on. Runs until cancelled.

        A server that answers otherwise than with its models is there: batches will tell whether it works.
        """
        misses, present, told, pause = 0, True, "", self._look_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                versions = await self.client.versions()
            except Unavailable:
                misses, pause = misses + 1, self._look_seconds
            except ShoalError as error:
                if told != str(error):
                    _log.warning("%s; it is asked again, ever more rarely", error)
                misses, told, pause = 0, str(error), min(2 * pause, RARELY_SECONDS)
            else:
                misses, told, pause = 0, "", self._look_seconds
                await self._revive(
                    [model for model in self._models if model.trouble or versions.get(model.config.name) == 0]
                )
            if present is (misses >= _MISSES):
                present = not present
                _log.warning("Triton at %s is %s", self.client.url, "back" if present else "away")
                yield present

    async def _revive(self, lost: Collection[TritonModel]) -> None:
        """Brings models back; what becomes of each is seen at it."""
        for outcome in await asyncio.gather(*(model.revive() for model in lost), return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, ShoalError):
                raise outcome

    async def close(self) -> None:
        """Closes every model here; the server keeps them."""
        self._exclusive = False
        for task in self._lingering:
            task.cancel()
        await asyncio.gather(*(model.close() for model in list(self._models)))
        await self.client.close()

    async def _model_closed(self, model: TritonModel) -> None:
        """Unloads it; with other processes, once they have had time to finish their batches of it."""
        self._models.discard(model)
        if self._processes == 1:
            await self._unload(model.config.name)
            return
        task = asyncio.create_task(self._unload_late(model.config.name))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _unload_late(self, name: str) -> None:
        await asyncio.sleep(self._linger_seconds)
        await self._unload(name)

    async def _unload(self, name: str) -> None:
        """Unloads a model, unless another version of it took its place or the server isn't ours."""
        if self._exclusive and all(other.config.name != name for other in self._models):
            try:
                await self.client.unload(name)
            except (Unavailable, ConfigurationError) as error:
                _log.warning("model %s stays at Triton: %s", name, error)


class RunningTriton:
    """Implements ``shoal.engine.Engine`` for models that a server runs already: nothing is loaded or unloaded."""

    def __init__(self, client: TritonClient) -> None:
        """Prepares; who made the client closes it."""
        self._engine = TritonEngine(client, lambda config: config)

    async def load(self, config: ModelConfig) -> TritonModel:
        """Takes a model that the server has ready, and runs a picture. Raises as ``TritonEngine.load``."""
        return await self._engine.adopt(config, "")

    async def close(self) -> None:
        """Does nothing: each model is closed by itself, and the client by who made it."""


def _mark(config: ModelConfig, description: Any) -> str:  # a protobuf message
    """Tells what is loaded from all else that could be; empty where its files can't be seen from here."""
    folder = config.path.parent
    try:
        stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
        files = [(name, found.st_size, found.st_mtime_ns) for name, found in stats]
    except OSError:
        return ""
    told = config.version, files, config.batching, description.SerializeToString(deterministic=True)
    return hashlib.sha256(repr(told).encode()).hexdigest()
