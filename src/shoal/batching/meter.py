"""The metrics of what a worker serves under one name."""

from __future__ import annotations

from shoal.errors import Code
from shoal.observe import metrics
from shoal.runtime.priority import Priority


class BatchMeter:
    """One model's metrics, with their labels bound once."""

    def __init__(self, model: str) -> None:
        self._size = metrics.WORKER_BATCH_SIZE.labels(model)
        self._queue = {priority: metrics.WORKER_QUEUE.labels(model, priority) for priority in Priority}
        self._compute = metrics.WORKER_COMPUTE.labels(model)
        self._answers = {
            (code, priority): metrics.WORKER_REQUESTS.labels(model, code.name, priority)
            for code in Code
            for priority in Priority
        }

    def answered(self, code: Code, priority: Priority, count: int = 1) -> None:
        """So many items have their results."""
        self._answers[code, priority].inc(count)

    def executed(self, size: int, waited: float, seconds: float, priority: Priority) -> None:
        """One batch was executed, after it had waited for a free instance."""
        self._size.observe(size)
        self._queue[priority].observe(waited)
        self._compute.observe(seconds)
