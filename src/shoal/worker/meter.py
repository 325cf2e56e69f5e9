"""The metrics of one model's batches and pictures."""

from __future__ import annotations

from shoal.batching.meter import BatchMeter
from shoal.errors import Code
from shoal.observe import metrics


class Meter(BatchMeter):
    """A model's, with their labels bound once."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._fetch = metrics.WORKER_FETCH.labels(model)
        self._fetch_bytes = metrics.WORKER_FETCH_BYTES.labels(model)
        self._fetches = {code: metrics.WORKER_FETCHES.labels(model, code.name) for code in Code}
        self._decode = metrics.WORKER_DECODE.labels(model)
        self._tensor_bytes = metrics.WORKER_TENSOR_BYTES.labels(model)

    def fetched(self, seconds: float, size: int) -> None:
        """One picture has come."""
        self._fetches[Code.OK].inc()
        self._fetch.observe(seconds)
        self._fetch_bytes.observe(size)

    def not_fetched(self, code: Code) -> None:
        """One picture didn't come."""
        self._fetches[code].inc()

    def decoded(self, seconds: float, size: int) -> None:
        """One picture is in its slot, where it takes ``size`` bytes."""
        self._decode.observe(seconds)
        self._tensor_bytes.inc(size)
