"""The metrics of one model's batches and pictures."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from shoal.batching.meter import BatchMeter
from shoal.errors import Code
from shoal.observe import metrics
from shoal.runtime.priority import BULK, INTERACTIVE, Priority
from shoal.worker.decode_choice import Way

Value = TypeVar("Value")


class Meter(BatchMeter):
    """A model's, with their labels bound once. What pictures tell is kept until ``settle``, and cheap so."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._fetch = metrics.WORKER_FETCH.labels(model)
        self._fetch_bytes = metrics.WORKER_FETCH_BYTES.labels(model)
        self._fetches = {code: metrics.WORKER_FETCHES.labels(model, code.name) for code in Code}
        self._decode = metrics.WORKER_DECODE.labels(model)
        self._device_decode = metrics.WORKER_DEVICE_DECODE.labels(model)
        self._decodes = {way: metrics.WORKER_DECODES.labels(model, way.value) for way in Way}
        self._tensor_bytes = metrics.WORKER_TENSOR_BYTES.labels(model)
        self._fetched: list[tuple[float, int]] = []
        self._decoded: list[tuple[float, int]] = []
        self._answered: list[tuple[int, bool, int]] = []
        """Code, whether it is bulk, and how many: enums are slow to count."""

    def fetched(self, seconds: float, size: int) -> None:
        """One picture has come."""
        self._fetched.append((seconds, size))

    def not_fetched(self, code: Code) -> None:
        """One picture didn't come."""
        self._fetches[code].inc()

    def decoded(self, seconds: float, size: int) -> None:
        """One picture is in its slot, where it takes ``size`` bytes."""
        self._decoded.append((seconds, size))

    def decoded_on_device(self, count: int, seconds: float) -> None:
        """So many pictures of a batch were decoded by its model's device, all together in ``seconds``."""
        self._decodes[Way.DEVICE].inc(count)
        self._device_decode.observe_all([seconds])

    def answered(self, code: Code, priority: Priority, count: int = 1) -> None:
        """So many items have their results. Any thread may say so."""
        if count:
            self._answered.append((int(code), priority is BULK, count))

    def settle(self) -> None:
        """Counts what was told since the last time; a batch says when."""
        if fetched := _taken(self._fetched):
            self._fetches[Code.OK].inc(len(fetched))
            self._fetch.observe_all([seconds for seconds, _ in fetched])
            self._fetch_bytes.observe_all([size for _, size in fetched])
        if decoded := _taken(self._decoded):
            self._decodes[Way.CPU].inc(len(decoded))
            self._decode.observe_all([seconds for seconds, _ in decoded])
            self._tensor_bytes.inc(sum(size for _, size in decoded))
        if answered := _taken(self._answered):
            counts: Counter[tuple[int, bool]] = Counter()
            for code, bulk, count in answered:
                counts[code, bulk] += count
            for (code, bulk), count in counts.items():
                super().answered(Code(code), BULK if bulk else INTERACTIVE, count)


def _taken(values: list[Value]) -> list[Value]:
    """What is there by now; another thread may append meanwhile."""
    if not values:
        return []
    taken = values.copy()
    del values[: len(taken)]
    return taken
