"""The metrics of what a worker serves under one name."""

from __future__ import annotations

from shoal.errors import Code
from shoal.observe import metrics


class BatchMeter:
    """One model's metrics, with their labels bound once."""

    def __init__(self, model: str) -> None:
        self._size = metrics.WORKER_BATCH_SIZE.labels(model)
        self._queue = metrics.WORKER_QUEUE.labels(model)
        self._compute = metrics.WORKER_COMPUTE.labels(model)
        self._codes = {code: metrics.WORKER_REQUESTS.labels(model, code.name) for code in Code}

    def answered(self, code: Code) -> None:
        """One item has its result."""
        self._codes[code].inc()

    def executed(self, size: int, waited: float, seconds: float) -> None:
        """One batch was executed, after it had waited for a free instance."""
        self._size.observe(size)
        self._queue.observe(waited)
        self._compute.observe(seconds)
