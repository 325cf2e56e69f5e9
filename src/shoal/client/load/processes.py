"""How many processes a load test needs, and whether those that it had were its limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from shoal.client.load.generator import LoadSettings
    from shoal.client.load.tally import LoadResult

_MILLISECONDS = 1000
_STREAM_PER_S, _UNARY_PER_S, _UPLOADS_PER_S = 4_000, 1_000, 250
"""What one process sends a second with a third of a core: by stream, one by one, and with a picture each
(``benchmarks.batching.client_cost``, and ``shoal bench`` on the service of that)."""
_ANSWER_SECONDS = 0.015
"""In the closed loop: the least time that a service under load is expected to take for an answer."""
_BUSY = 0.85
"""Of a core: who uses more can't send more."""


def processes_for(settings: LoadSettings, *, streams: bool, upload: bool, cores: int) -> int:
    """How many processes send such a load without being its limit: as few as that takes.

    Few, since calls that share a process share messages; half of the cores at most, since the service may run on this
    machine; and never one without a caller.

    Args:
        settings: The load.
        streams: Whether calls may go by stream.
        upload: Whether each request brings its picture.
        cores: What this machine has.
    """
    one = _UPLOADS_PER_S if upload else _STREAM_PER_S if streams else _UNARY_PER_S
    rate = settings.concurrency / _ANSWER_SECONDS if settings.rate is None else settings.rate
    callers = settings.concurrency if settings.rate is None else cores
    return max(1, min(math.ceil(rate / one), cores // 2, callers))


def busy_generator(result: LoadResult, processes: int, rate: float | None) -> str | None:
    """Why the load may have been the generator's limit rather than the service's; None if it was not.

    Args:
        result: What came of the load.
        processes: How many sent it.
        rate: Arrivals a second; None in the closed loop.
    """
    cores = result.cpu_seconds / max(result.duration_seconds, 1e-9)
    if cores > _BUSY * processes:  # one core a process is all that it can use
        return f"the load generator used {cores:.2f} cores with {processes} processes: raise --processes"
    lag = result.lag_seconds / max(len(result.latencies), 1)
    p50 = percentile(sorted(result.latencies), 0.50) or 0.0
    if rate is not None and lag > 0.1 * p50:
        return f"requests left {lag * _MILLISECONDS:.1f} ms late on average: raise --processes, or lower --rate"
    return None
