"""What parts tell of a request: 50 ms in the batcher, 46 of them at the worker."""

from __future__ import annotations

from typing import Any

from shoal.explain.views import BatcherVisit, BatchView, WorkerVisit

SENT_AS = (2_000, 998_000)


def batch_view(**changes: Any) -> BatchView:
    """A batch of two that closed by its delay."""
    given = {
        "size": 2,
        "open_seconds": 0.005,
        "closed_because": "delay",
        "max_batch_size": 8,
        "preferred_batch_size": (4, 8),
        "max_queue_delay_microseconds": 5000,
    }
    return BatchView(**(given | changes))


def batcher_visit(**changes: Any) -> BatcherVisit:
    """One that was answered OK."""
    given = {
        "model": "m",
        "key_id": "key-1",
        "seconds_ago": 3.0,
        "stage_seconds": {"permit": 0.002, "open": 0.005, "closed": 0.043},
        "total_seconds": 0.05,
        "code": "OK",
        "sent_as": SENT_AS,
        "method": "/shoal.v1.Inference/Classify",
        "timeout_seconds": 1.0,
        "batch": batch_view(),
    }
    return BatcherVisit(**(given | changes))


def worker_visit(version: int = 1, **changes: Any) -> WorkerVisit:
    """The same request in the worker."""
    given = {
        "model": "m",
        "model_version": version,
        "key_id": "key-1",
        "seconds_ago": 2.99,
        "stage_seconds": {
            "fetch": 0.004, "slot": 0.0, "decode": 0.002, "company": 0.003, "mates": 0.002, "instance": 0.004,
            "compute": 0.03, "reply": 0.001,
        },
        "total_seconds": 0.046,
        "code": "OK",
        "sent_as": SENT_AS,
        "batch_size": 2,
        "executions": 1,
    }  # fmt: skip
    return WorkerVisit(**(given | changes))
