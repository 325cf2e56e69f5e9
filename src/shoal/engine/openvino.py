"""The embedded engine: OpenVINO on this machine's CPU, in this process.

Each model has ``instance_count`` threads with an inference request each. A thread calls ``infer()``, which lets the GIL
go, rather than ``start_async()``: that one never calls back when an inference fails, which would strand a whole batch.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import openvino

from shoal.engine import Inference, NotBatchable, Unsupported
from shoal.engine.limits import check_size
from shoal.engine.slots import OVERSHOOT, PREFETCHED, ArraySlot, SlotPool
from shoal.errors import ConfigurationError, DeadlineExceeded, Internal, Unavailable
from shoal.runtime.priority import Priority
from shoal.runtime.threads import make_pool, usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig

_log = logging.getLogger(__name__)

Precision = Literal["f32", "bf16"]
"""What the model computes in, whatever its inputs and outputs are.

``bf16`` is faster where the CPU multiplies bf16 matrices (AMX), and moves probabilities by up to 0.02: so answers would
depend on the machine if it weren't asked for. A CPU that only has AVX-512 BF16 is slower with it.
"""


class OpenVinoEngine:
    """Implements ``shoal.engine.Engine``."""

    def __init__(self, *, cache: Path | None = None, threads: int | None = None, precision: Precision = "f32") -> None:
        """Prepares; the first ``load`` starts OpenVINO.

        Args:
            cache: A folder for compiled models, which then start about twice as fast; made if it is not there.
            threads: Cores that inference may use. None: all that this process may run on.
            precision: What the models compute in.
        """
        self._cache = cache
        self._threads = threads or usable_cores()
        self._precision = precision
        self._core: openvino.Core | None = None
        self._loader = make_pool(1, "infer-load")  # OpenVINO's own threads inherit its name, and so count as inference
        self._models: weakref.WeakSet[OpenVinoModel] = weakref.WeakSet()

    async def load(self, config: ModelConfig) -> OpenVinoModel:
        """Compiles a model for batches of 1 to ``max_batch_size``, and runs a picture. Raises as ``Engine.load``."""
        check_size(config)
        loop = asyncio.get_running_loop()
        if self._core is None:
            self._core = await loop.run_in_executor(self._loader, self._start)
        started = time.perf_counter()
        model = OpenVinoModel(config, await loop.run_in_executor(self._loader, self._compile, self._core, config))
        try:
            await model.warm()
        except BaseException as error:
            await model.close()
            if isinstance(error, Internal):
                raise ConfigurationError(f"{config.path}: can't be executed: {error}") from error
            raise
        self._models.add(model)
        _log.info(
            "model %s version %d is warm after %.2f s", config.name, config.version, time.perf_counter() - started
        )
        return model

    async def close(self) -> None:
        """Turns new work away from every model and waits for what runs."""
        for model in list(self._models):
            await model.close()
        self._loader.shutdown(wait=False)

    def _start(self) -> openvino.Core:
        core = openvino.Core()
        if self._cache is not None:
            self._cache.mkdir(parents=True, exist_ok=True)
            core.set_property({"CACHE_DIR": str(self._cache)})
        return core

    def _compile(self, core: openvino.Core, config: ModelConfig) -> openvino.CompiledModel:
        try:
            model = core.read_model(config.path)
        except RuntimeError as error:
            raise Unsupported(f"{config.path}: not a model that OpenVINO can read: {_reason(error)}") from error
        _check_ports(config, model)
        most = config.batching.max_batch_size
        batch = openvino.Dimension(1, most) if most > 1 else openvino.Dimension(1)
        try:
            model.reshape({0: openvino.PartialShape([batch, *map(openvino.Dimension, config.input.shape)])})
            return core.compile_model(model, "CPU", self._properties(config))
        except RuntimeError as error:
            kind = NotBatchable if most > 1 else Unsupported
            raise kind(f"{config.path}: can't run with batches of 1 to {most}: {_reason(error)}") from error

    def _properties(self, config: ModelConfig) -> dict[str, Any]:
        return {
            "NUM_STREAMS": str(min(config.batching.instance_count, self._threads)),
            "INFERENCE_NUM_THREADS": str(self._threads),
            "INFERENCE_PRECISION_HINT": self._precision,
            # Decoding runs on the same cores: a pinned thread would wait for it while another core idles.
            "ENABLE_CPU_PINNING": False,
        }


class OpenVinoModel:
    """Implements ``shoal.engine.LoadedModel``."""

    def __init__(self, config: ModelConfig, compiled: openvino.CompiledModel) -> None:
        self._config = config
        instances = config.batching.instance_count
        self._requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(instances):
            self._requests.put(compiled.create_infer_request())
        self._ports = {output.name: compiled.output(output.name) for output in config.outputs}
        self._threads = make_pool(instances, f"infer-{config.name}")
        self._slots = SlotPool(self._make_slot, instances + PREFETCHED + OVERSHOOT)
        self._closed = False

    @property
    def config(self) -> ModelConfig:
        """What it was loaded with."""
        return self._config

    @property
    def trouble(self) -> str:
        """Always empty: what runs in this process is never away."""
        return ""

    async def acquire(self, priority: Priority = Priority.INTERACTIVE) -> OpenVinoSlot:
        """A free slot, once there is one. Raises Unavailable if the model is closed."""
        return await self._slots.acquire(priority)

    def release(self, slot: OpenVinoSlot) -> None:
        """Gives a slot back; one that a timed-out or cancelled inference still reads is reused once that is done."""
        if slot.running is None or slot.running.done():
            self._slots.release(slot)
            return
        loop = asyncio.get_running_loop()
        slot.running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._slots.release, slot))

    async def infer(self, slot: OpenVinoSlot, size: int, timeout_microseconds: int = 0) -> Inference:
        """Runs the first ``size`` rows of ``slot`` in a thread; 0 microseconds: no deadline. Raises as its protocol."""
        if self._closed:
            raise Unavailable("the model was unloaded; try again")
        slot.running = self._threads.submit(self._run, slot.input[:size])
        try:
            async with asyncio.timeout(timeout_microseconds / 1e6 if timeout_microseconds else None):
                return await asyncio.wrap_future(slot.running)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the model executed, or before it could") from None

    async def warm(self) -> None:
        """Runs one picture on every instance, which compiles its kernels.

        Other sizes need no warming: what they add on first use is not measurable.
        """
        row = np.zeros((1, *self._config.input.shape), self._config.input.dtype)
        # A request goes to the end of the queue after its run, so each gets one.
        for run in [self._threads.submit(self._run, row) for _ in range(self._config.batching.instance_count)]:
            await asyncio.wrap_future(run)

    async def close(self) -> None:
        """Turns new work away and waits for what runs."""
        self._closed = True
        self._slots.close()
        await asyncio.to_thread(self._threads.shutdown)

    def _run(self, rows: NDArray[np.generic]) -> Inference:
        """Executes ``rows``, in one of this model's threads; there is a request for each of those."""
        request = self._requests.get()
        started = time.perf_counter()
        try:
            results = request.infer(rows, share_inputs=True)
        except RuntimeError as error:
            raise Internal(f"model {self._config.name!r}: inference failed: {_reason(error)}") from error
        finally:
            self._requests.put(request)
        seconds = time.perf_counter() - started
        outputs: dict[str, NDArray[np.generic]] = {name: results[port] for name, port in self._ports.items()}
        for name, value in outputs.items():
            if value.shape[:1] != rows.shape[:1]:
                raise Internal(
                    f"model {self._config.name!r}: output {name!r} has shape {value.shape} for {len(rows)} rows"
                )
        return Inference(outputs, seconds)

    def _make_slot(self) -> OpenVinoSlot:
        shape = (self._config.batching.max_batch_size, *self._config.input.shape)
        return OpenVinoSlot(np.zeros(shape, self._config.input.dtype))


@dataclass(eq=False)
class OpenVinoSlot(ArraySlot):
    """Implements ``shoal.engine.Slot``; the model reads its memory in place."""

    input: NDArray[np.generic]
    running: Future[Inference] | None = None
    """What reads the memory now, or did last."""


def _check_ports(config: ModelConfig, model: openvino.Model) -> None:
    inputs = {name: port for port in model.inputs for name in port.get_names()}
    outputs = {name for port in model.outputs for name in port.get_names()}
    wanted = config.input
    if len(model.inputs) != 1 or wanted.name not in inputs:
        raise ConfigurationError(f"{config.path}: expected one input, {wanted.name!r}; it has {_names(inputs)}")
    missing = [output.name for output in config.outputs if output.name not in outputs]
    if missing:
        raise ConfigurationError(f"{config.path}: there is no output {missing[0]!r}; it has {_names(outputs)}")
    port = inputs[wanted.name]
    fits = openvino.PartialShape([-1, *wanted.shape]).compatible(port.get_partial_shape())
    if not fits or port.get_element_type().to_dtype() != np.dtype(wanted.dtype):
        raise ConfigurationError(
            f"{config.path}: the input {wanted.name!r} is {port.get_element_type()} {port.get_partial_shape()}; "
            f"the configuration says {wanted.dtype} {wanted.shape} behind the batch dimension"
        )


def _names(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _reason(error: RuntimeError) -> str:
    """The last line of an OpenVINO message that says something: those before it name OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("Exception from")), "unknown reason")
