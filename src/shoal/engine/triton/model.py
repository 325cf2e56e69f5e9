"""A model that a Triton runs for us."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as v2

from shoal.engine import BrokenOff, Inference
from shoal.engine.limits import row_bytes
from shoal.engine.slots import OVERSHOOT, PREFETCHED, SlotPool
from shoal.engine.triton import encoded_rows
from shoal.engine.triton.encoded_slot import EncodedSlot
from shoal.engine.triton.server_executions import ServerExecutions
from shoal.engine.triton.slot import PROTOCOL_NAMES, PixelSlot, place
from shoal.errors import ConfigurationError, DeadlineExceeded, Internal, NotFound, Unavailable
from shoal.runtime.priority import Priority
from shoal.runtime.share import share
from shoal.triton import LOOK_SECONDS, RARELY_SECONDS
from shoal.triton.client import AWAY, Away, NotSteered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from numpy.typing import NDArray

    from shoal.engine.triton.sharing import Sharing
    from shoal.engine.triton.slot import TritonSlot
    from shoal.modelconfig.model import ModelConfig

_log = logging.getLogger(__name__)

_CANT_LOAD: Final = "the inference server can't load the model; try again"
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_PATIENCE_SECONDS: Final = 60.0
"""A batch without a deadline is tried again for so long."""
_DEAD: Final = "is not healthy"
"""In Triton's answer where the process of a Python model has died. It starts no other one until the model is loaded."""
_MOST_DEATHS: Final = 2
"""Of processes under one batch, until it isn't tried again."""
_DTYPES: Final = {name: dtype for dtype, name in PROTOCOL_NAMES.items()}
"""Numpy's name of the protocol's."""


class _ProcessDiedError(Exception):
    """A process that runs the model died, under this batch or before it."""


class TritonModel:
    """Implements ``shoal.engine.LoadedModel``."""

    def __init__(
        self,
        config: ModelConfig,
        sharing: Sharing,
        steering: str,
        closed: Callable[[TritonModel], Awaitable[None]],
        processes: int = 1,
        alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        """Prepares; the server has the model ready.

        Args:
            config: The model's.
            sharing: With its server.
            steering: What to load it with once the server has lost it.
            closed: Is told once nothing runs here any more.
            processes: That share the model's instances, we among them.
            alone: While none of them loads.
        """
        self._sharing = sharing
        self._client = sharing.client
        self._closed_with = closed
        self._config = config
        self._steering = steering
        self._alone = alone
        self._processes = processes
        instances = share(config.batching.instance_count, processes)
        self._executions = ServerExecutions(instances)
        self._slots = SlotPool(self._make_slot, instances + PREFETCHED + OVERSHOOT)
        self._made: list[TritonSlot] = []
        self._running: set[asyncio.Task[Inference]] = set()
        self._reviving = asyncio.Lock()
        self._retry_at, self._pause = 0.0, LOOK_SECONDS
        self._restarted_at = -math.inf
        self._closed = False
        self.trouble = ""
        """Why the server can't load it again; empty: it can, or needn't."""

    @property
    def config(self) -> ModelConfig:
        """What it was loaded with."""
        return self._config

    async def acquire(self, priority: Priority = Priority.INTERACTIVE) -> TritonSlot:
        """A free slot, once there is one. Raises Unavailable if the model is closed."""
        slot = await self._slots.acquire(priority)
        slot.clear()
        return slot

    def release(self, slot: TritonSlot) -> None:
        """Gives a slot back; one whose batch is still at the server is reused once that has answered."""
        if slot.running is None or slot.running.done():
            self._slots.release(slot)
        else:
            slot.running.add_done_callback(lambda _: self._slots.release(slot))

    async def infer(self, slot: TritonSlot, size: int, timeout_microseconds: int = 0) -> Inference:
        """Has the server run the first ``size`` rows of ``slot``, and asks again while it is away.

        Args:
            slot: From ``acquire``.
            size: Pictures in it.
            timeout_microseconds: The deadline, from now. 0: none, and a server that is away is waited for a minute.

        Raises:
            Unavailable: the server is away, or lost the model and can't load it now.
            DeadlineExceeded: the server didn't answer in time.
            Internal: it refused the batch, or its answer makes no sense.
        """
        deadline = monotonic() + timeout_microseconds / 1e6 if timeout_microseconds else math.inf
        if await _over(slot.running, deadline):  # else its late answer could be written over this one's
            if self._closed:
                raise Unavailable("the model was unloaded; try again")
            patience = min(deadline, monotonic() + _PATIENCE_SECONDS)
            # The request stays at the server, and reads the slot, whatever we do; so it is never cancelled.
            running = slot.running = asyncio.create_task(self._run(slot, size, patience, deadline))
            self._running.add(running)
            running.add_done_callback(self._execution_ended)
            if await _over(running, deadline):
                return running.result()
        if slot.away:
            raise Unavailable("the inference server is away, and the deadline passed; try again")
        raise DeadlineExceeded("the deadline passed while the model executed, or before it could")

    async def warm(self) -> None:
        """Runs one picture, to see it work."""
        slot = await self.acquire()
        try:
            await self.infer(slot, 1)
        finally:
            self.release(slot)

    async def revive(self) -> None:
        """Loads the model at a server that was started again. Raises Unavailable where that can't be now.

        One that can't be loaded is tried again, but with growing pauses: a load may take the server a while.
        """
        async with self._reviving:
            try:
                if monotonic() < self._retry_at:
                    raise Unavailable(_CANT_LOAD)
                async with self._alone():
                    if (await self._client.versions()).get(self._config.name):
                        self._recovered()
                        return  # another batch has seen to it, or another process
                    await self._client.load(self._config.name, self._steering)
            except NotSteered as error:
                raise Unavailable("the inference server has not loaded the model yet; try again") from error
            except (ConfigurationError, NotFound) as error:
                if self.trouble != str(error):
                    _log.error("model %s: %s", self._config.name, error)
                self.trouble = str(error)
                self._retry_at = monotonic() + self._pause
                self._pause = min(2 * self._pause, RARELY_SECONDS)
                raise Unavailable(_CANT_LOAD) from error
            self._recovered()
            _log.info("model %s is loaded at Triton again", self._config.name)

    def _recovered(self) -> None:
        self.trouble, self._retry_at, self._pause = "", 0.0, LOOK_SECONDS

    async def _restart(self, asked_at: float) -> None:
        """Has the server start the model's processes anew, once for all batches that found one dead.

        Args:
            asked_at: When the batch was sent.

        Raises:
            Internal: the server loads nothing on demand.
            Unavailable: as ``revive``.
        """
        async with self._reviving, self._alone():
            if self._restarted_at > asked_at or (self._processes > 1 and not await self._has_dead_process()):
                return  # another batch has seen to it, or another process of ours
            _log.warning("model %s: a process of its died in Triton, so it is loaded anew", self._config.name)
            try:
                await self._client.unload(self._config.name)  # what it has, and finds unchanged, it wouldn't load
            except ConfigurationError as error:
                raise Internal(f"model {self._config.name!r}: its process in Triton died; load it again") from error
            self._restarted_at = monotonic()
        await self.revive()

    async def _has_dead_process(self) -> bool:
        """Asks about a picture of zeros, as often as there are processes: an idle one answers, so they take turns."""
        picture = self._config.input
        request = v2.ModelInferRequest(model_name=self._config.name)
        request.inputs.add(name=picture.name, datatype=PROTOCOL_NAMES[picture.dtype], shape=[1, *picture.shape])
        request.raw_input_contents.append(bytes(row_bytes(picture)))
        for _ in range(self._config.batching.instance_count):
            try:
                await self._client.infer(request)
            except grpc.aio.AioRpcError as error:
                if _DEAD in (error.details() or ""):
                    return True
        return False

    async def close(self) -> None:
        """Turns new work away and waits for what runs."""
        self._closed = True
        self._slots.close()
        if self._running:
            await asyncio.wait(self._running)
        for slot in self._made:
            slot.close(self._sharing)
        self._made.clear()
        await self._closed_with(self)
        await self._sharing.dropped()

    async def _run(self, slot: TritonSlot, size: int, patience: float, deadline: float) -> Inference:
        """Asks until there is an answer. Raises as ``infer``."""
        pause = _FIRST_PAUSE
        deaths = 0
        while True:
            try:
                return await self._ask(slot, size, deadline)
            except _ProcessDiedError as died:
                deaths += 1
                if slot.has_files(size):
                    raise BrokenOff("the model's process in the inference server died; try again") from died
                if deaths > _MOST_DEATHS:  # it may be this batch that ends it
                    raise Internal(f"model {self._config.name!r}: inference failed: {died}") from died
            except Unavailable as error:
                slot.away = True
                if slot.has_files(size) and slot.doubtful:
                    raise BrokenOff("the inference server went away; try again") from error
                if self._closed or monotonic() + pause >= patience:
                    if isinstance(error, Away):  # its address is no caller's affair
                        raise Unavailable("the inference server is away; try again") from error
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ask(self, slot: TritonSlot, size: int, deadline: float) -> Inference:
        """Asks once, or again where the server only had to be told of memory or model."""
        await slot.share(self._sharing)
        request = self._request(slot, size, deadline)
        batch, asked_at = self._executions.begin(), monotonic()
        try:
            answer = await self._client.infer(request)
        except grpc.aio.AioRpcError as error:
            died = _DEAD in (error.details() or "")
            slot.doubtful = died or error.code() in AWAY
            if died:
                await self._restart(asked_at)
                raise _ProcessDiedError(error.details()) from error
            await self._recover(error, slot)
            raise Unavailable("the inference server was started again; try again") from error
        finally:
            seconds = self._executions.end(batch)
        slot.away = False
        outputs = self._outputs(slot, answer, size)
        reports = self._reports(outputs, size) if self._config.encoded else None
        return Inference(outputs, seconds, _number(answer.model_version), reports)

    async def _recover(self, error: grpc.aio.AioRpcError, slot: TritonSlot) -> None:
        """Returns where another try may succeed at once. Raises as ``infer`` where not."""
        reason = error.details() or error.code().name
        if error.code() is grpc.StatusCode.NOT_FOUND:
            if "shared memory" in reason:
                slot.shared = False
            else:
                await self.revive()
        elif "timeout expired" in reason:
            raise DeadlineExceeded("the deadline passed before the model could execute") from error
        elif error.code() in AWAY:
            raise self._client.away(error) from error
        else:
            raise Internal(f"model {self._config.name!r}: inference failed: {error.code().name}: {reason}") from error

    def _request(self, slot: TritonSlot, size: int, deadline: float) -> Any:  # a protobuf message
        request = v2.ModelInferRequest(model_name=self._config.name)
        if deadline < math.inf:
            request.parameters["timeout"].int64_param = max(1, int((deadline - monotonic()) * 1e6))
        slot.ask_for(request, size)
        for output in self._config.outputs:
            wanted = request.outputs.add(name=output.name)
            if slot.shared and output.name in slot.results:
                place(wanted, slot.results[output.name], size * row_bytes(output))
        if self._config.encoded:
            request.outputs.add(name=encoded_rows.REPORT)
        return request

    def _outputs(self, slot: TritonSlot, answer: Any, size: int) -> dict[str, NDArray[np.generic]]:
        outputs: dict[str, NDArray[np.generic]] = {}
        try:
            for tensor, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
                dtype = np.dtype(_DTYPES[tensor.datatype])
                outputs[tensor.name] = (
                    np.frombuffer(slot.results[tensor.name].memory, dtype, math.prod(tensor.shape)).copy()
                    if slot.shared and tensor.name in slot.results
                    else np.frombuffer(content, dtype)
                ).reshape(tensor.shape)
        except (KeyError, ValueError) as error:
            raise Internal(f"model {self._config.name!r}: an output makes no sense: {error}") from error
        for name, value in outputs.items():
            if value.shape[:1] != (size,):
                raise Internal(f"model {self._config.name!r}: output {name!r} has shape {value.shape} for {size} rows")
        return outputs

    def _reports(self, outputs: dict[str, NDArray[np.generic]], size: int) -> NDArray[np.int32]:
        """Takes what became of each row out of ``outputs``."""
        reports, wanted = outputs.pop(encoded_rows.REPORT, None), (size, len(encoded_rows.REPORT_FIELDS))
        if reports is None or reports.dtype != np.int32 or reports.shape != wanted:
            found = "missing" if reports is None else f"{reports.dtype} {reports.shape}"
            raise Internal(
                f"model {self._config.name!r}: output {encoded_rows.REPORT!r} is {found}; expected int32 {wanted}"
            )
        return reports.astype(np.int32, copy=False)

    def _make_slot(self) -> TritonSlot:
        slot = (EncodedSlot if self._config.encoded else PixelSlot)(self._config, self._sharing)
        self._made.append(slot)
        return slot

    def _execution_ended(self, task: asyncio.Task[Inference]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has gone if nobody looks at it


async def _over(running: asyncio.Task[Inference] | None, deadline: float) -> bool:
    """Whether it, if it is anything, has ended by ``deadline``; it goes on in any case."""
    if running is not None and not running.done():
        left = None if math.isinf(deadline) else max(0.0, deadline - monotonic())
        await asyncio.wait({running}, timeout=left)
    return running is None or running.done()


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
