"""A running Triton as a profile's target.

Batches lie in shared memory: a region an input for each batch in flight, registered once, and let go of at the end. A
server that refuses shared memory gets them in the messages. What is loaded is profiled as it is; another number of
instances takes a server whose models may be steered (``--model-control-mode=explicit``): the model is loaded with that
many and without a dynamic batcher, which would merge what is measured, and at the end as it was.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc

from shoal.engine.slots import SlotPool
from shoal.engine.triton.shared_memory import sweep
from shoal.errors import ConfigurationError, Internal, NotFound, ShoalError, Unavailable
from shoal.modelconfig import encoded, pbtxt
from shoal.profile.inputs import fill_randomly
from shoal.profile.records import Subject
from shoal.profile.shared_input import SharedInput, dtype
from shoal.triton.client import AWAY, NotSteered, TritonClient
from shoal.triton.steer import original

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from shoal.profile.inputs import Fill

_NO_MODEL: Final = "shoal-profile-asks-whether-it-may"
_VARIED: Final = ("instance_group", "dynamic_batching", "max_batch_size")
"""Fields of a configuration that a profile is about: they don't make another subject."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be profiled."""

    url: str
    """``HOST:PORT`` of the v2 gRPC protocol."""
    model: str
    batches: Sequence[int] | None
    """Images a batch. None: 1 and the model's ``max_batch_size``."""
    in_flight: int
    """The most."""
    steer: bool = False
    """Whether the model may be loaded with other numbers of instances."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request."""


class TritonTarget:
    """Implements ``shoal.profile.target.Target``."""

    def __init__(self, client: TritonClient, asked: Asked, config: Any, say: Callable[[str], None]) -> None:
        self._client = client
        self._asked = asked
        self._config = config
        self._say = say
        self._inputs: list[SharedInput] = []
        self._steers = False
        self._version = 0
        self._server = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, asked: Asked, say: Callable[[str], None], fill: Callable[[Any], Fill] = lambda _: fill_randomly
    ) -> AsyncIterator[TritonTarget]:
        """The model at the server, which is as it was before once the block ends.

        Args:
            asked: What.
            say: Told what a user should know.
            fill: From the first input's message in the configuration to what fills it; the others are random.

        Raises:
            Unavailable: nothing answers there, or the model isn't loaded and can't be.
            NotFound: the server has no such model.
            ConfigurationError: it can't be profiled.
        """
        async with TritonClient(asked.url) as client:
            if not await client.live():
                raise Unavailable(f"no Triton answers at {asked.url}; name its gRPC port, 8001 by default")
            loaded = await _make_ready(client, asked, say)
            try:
                target = cls(client, asked, await client.config(asked.model), say)
                try:
                    await target._prepare(fill)
                    yield target
                finally:
                    await target._release()
            finally:
                if loaded:
                    with suppress(ShoalError):
                        await client.unload(asked.model)

    @property
    def subject(self) -> Subject:
        """The configuration at the server, by its checksum without what a profile varies, and the server's version."""
        told = type(self._config)()
        told.CopyFrom(original(self._config))
        for name in _VARIED:
            told.ClearField(name)
        digest = hashlib.sha256(told.SerializeToString(deterministic=True)).hexdigest()
        return Subject(
            model=self._asked.model,
            version=self._version,
            engine="triton",
            engine_version=self._server,
            checksum=f"sha256:{digest}",
            checksum_of="configuration",
            transport="shared memory" if self._inputs[0].regions else "messages",
        )

    @property
    def instances(self) -> int:
        """The sum over the ``instance_group`` of what is loaded."""
        return pbtxt.instances(self._config)

    @property
    def batches(self) -> Sequence[int]:
        """Sizes to profile."""
        return self._asked.batches or sorted({1, max(self._config.max_batch_size, 1)})

    def possible(self, instances: Sequence[int]) -> Sequence[int]:
        """Those of ``instances`` that can be had; says so where that is only what is loaded."""
        if self._steers or instances == (self.instances,):
            return instances
        self._say(
            f"Triton at {self._asked.url} doesn't let its models be loaded from here, so what is loaded is profiled: "
            f"{self.instances} for {self._asked.model}. For others start it with --model-control-mode=explicit"
        )
        return (self.instances,)

    @asynccontextmanager
    async def loaded(self, instances: int) -> AsyncIterator[LoadedThere]:
        """Loads the model with so many instances where the server lets us, and as it was afterwards."""
        if not self._steers:
            yield self._model()
            return
        await self._client.load(self._asked.model, pbtxt.to_json(with_instances(self._config, instances)))
        try:
            yield self._model()
        finally:
            await self._client.load(self._asked.model, pbtxt.to_json(self._config))

    def _model(self) -> LoadedThere:
        return LoadedThere(self._client, self._asked.model, self._version, self._inputs)

    async def _prepare(self, fill: Callable[[Any], Fill]) -> None:
        """Makes the inputs of each batch in flight."""
        _check(self._asked.model, self._config, largest := max(self.batches))
        self._steers = self._asked.steer and await _may_steer(self._client)
        self._server = await self._client.version()
        self._version = (await self._client.versions())[self._asked.model]
        inputs = encoded.pictures(self._config)
        fills = [fill(inputs[0]), *[fill_randomly] * (len(inputs) - 1)]
        sweep()
        self._inputs = [
            SharedInput(self._config, largest, fills, self._asked.parameters) for _ in range(self._asked.in_flight)
        ]
        try:
            for each in self._inputs:
                await each.share(self._client)
        except (OSError, ConfigurationError) as error:
            self._say(f"no shared memory with Triton, so batches go in the messages: {error}")
            await self._release()

    async def _release(self) -> None:
        """Takes the memory away, here and at the server."""
        names = [name for each in self._inputs for name in each.unshare()]
        if left := await self._client.unregister(names):
            self._say(f"Triton at {self._asked.url} keeps {len(left)} regions of shared memory until it ends")


class LoadedThere:
    """Implements ``shoal.profile.target.Loaded``."""

    def __init__(self, client: TritonClient, model: str, version: int, inputs: list[SharedInput]) -> None:
        self._client = client
        self._model = model
        self._version = version
        unused = iter(inputs)
        self._pool = SlotPool(lambda: next(unused), len(inputs))

    async def run(self, batch: int) -> None:
        """Sends one batch; waits while as many as were announced are in flight."""
        shared = await self._pool.acquire()
        try:
            answer = await self._client.infer(shared.request(batch))
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise self._client.away(error) from error
            reason = error.details() or error.code().name
            raise Internal(f"model {self._model!r}: Triton can't run a batch of {batch}: {reason}") from error
        finally:
            self._pool.release(shared)
        if not answer.raw_output_contents or not all(answer.raw_output_contents):
            raise Internal(f"model {self._model!r}: an output came back empty, so nothing it does can be measured")

    async def executions(self) -> tuple[int, int] | None:
        """From the server's statistics; None where it doesn't keep any."""
        try:
            return await self._client.executions(self._model, self._version)
        except ConfigurationError:
            return None


def with_instances(config: Any, instances: int) -> Any:  # protobuf messages
    """A configuration with so many instances and without a batcher or a cache of Triton's own.

    Raises:
        ConfigurationError: it has instance groups of several kinds or GPUs.
    """
    groups = config.instance_group
    if len(groups) > 1 or any(len(group.gpus) > 1 for group in groups):
        raise ConfigurationError(
            f"--instances {instances}: model {config.name!r} has instances in several groups or on several GPUs; "
            "leave --instances out, or load it with one group on one GPU"
        )
    changed = type(config)()
    changed.CopyFrom(config)
    pbtxt.set_instances(changed, instances)
    if changed.WhichOneof("scheduling_choice") == "dynamic_batching":
        changed.ClearField("dynamic_batching")
    changed.ClearField("response_cache")
    return changed


async def _may_steer(client: TritonClient) -> bool:
    """Whether the server loads what it is told to: one that doesn't says so before it looks for the model."""
    try:
        await client.load(_NO_MODEL)
    except NotSteered:
        return False
    except ConfigurationError:
        pass
    return True


async def _make_ready(client: TritonClient, asked: Asked, say: Callable[[str], None]) -> bool:
    """Whether the model was loaded for this."""
    versions = await client.versions()
    if asked.model not in versions:
        raise NotFound(
            f"model {asked.model!r} is not in the repository of Triton at {asked.url}; there: {', '.join(versions)}"
        )
    if versions[asked.model]:
        return False
    try:
        await client.load(asked.model)
    except NotSteered as error:
        raise Unavailable(f"model {asked.model!r} isn't ready at Triton, whose log says why: {error}") from error
    say(f"loaded {asked.model} at Triton, until this ends")
    return True


def _check(model: str, config: Any, largest: int) -> None:  # a protobuf message
    """Raises ConfigurationError for a model that can't be profiled like that."""
    if not encoded.pictures(config):
        raise ConfigurationError(f"model {model!r}: its configuration at Triton names no input")
    for tensor in encoded.pictures(config):
        if min(tensor.dims, default=0) < 1:
            raise ConfigurationError(
                f"model {model!r}: the input {tensor.name!r} has no fixed shape, {list(tensor.dims)}; write "
                "input.dims into its config.pbtxt"
            )
        dtype(tensor)
    if largest > max(config.max_batch_size, 1):
        raise ConfigurationError(
            f"--batch {largest}: max_batch_size of model {model!r} is {config.max_batch_size} at Triton"
        )
