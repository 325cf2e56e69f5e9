"""What one process of a worker may do at once: its share of what the pool allows a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoal.runtime.share import share

if TYPE_CHECKING:
    from shoal.service.spec import Pool

MOST_DECODE_PROCESSES: Final = 4
"""Pictures that a worker decodes in processes of their own at once, where the service file has no number: each may take
``max_decode_memory_bytes``."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one process may do at once. Counts are rounded up, so that each process can work; bytes are rounded down."""

    decode_threads: int
    decode_processes: int
    fetch_concurrency: int
    fetched_bytes: int
    picture_cache_bytes: int

    @classmethod
    def of(cls, pool: Pool, cores: int) -> ProcessLimits:
        """Those of each of ``pool.worker_processes`` that have ``cores`` together."""
        threads = pool.decode_threads or cores
        decoders = pool.decode_processes or min(threads, MOST_DECODE_PROCESSES)
        return cls(
            decode_threads=share(threads, pool.worker_processes),
            decode_processes=share(decoders, pool.worker_processes),
            fetch_concurrency=share(pool.fetch_concurrency, pool.worker_processes),
            fetched_bytes=pool.fetched_bytes_a_process,
            picture_cache_bytes=pool.picture_cache_bytes // pool.worker_processes,
        )
