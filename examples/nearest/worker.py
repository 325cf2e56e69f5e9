"""Finds the nearest of 50,000 vectors: python worker.py HOST:PORT [METRICS_HOST:PORT]."""

import sys

import numpy as np
from nearest_pb2 import Neighbour, Query

from shoal import batching
from shoal.errors import InvalidRequest

VECTORS = np.random.default_rng(seed=0).standard_normal((50_000, 256), np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)

server = batching.Server()
settings = batching.BatchingSettings(max_batch_size=32, max_queue_delay_microseconds=2_000)


@server.batched("/nearest.v1.Search/Nearest", Query, Neighbour, settings)
def nearest(queries: list[Query]) -> list[Neighbour | Exception]:
    """One pass over the vectors, 51 MB, for the whole batch."""
    rows = np.zeros((len(queries), VECTORS.shape[1]), np.float32)
    faults = [read(query, row) for query, row in zip(queries, rows, strict=True)]
    cosines = rows @ VECTORS.T
    found = [Neighbour(id=row.argmax(), cosine=row.max(), batch_size=len(queries)) for row in cosines]
    return [fault or neighbour for fault, neighbour in zip(faults, found, strict=True)]


def read(query: Query, row: np.ndarray) -> InvalidRequest | None:
    """Writes a query's direction into its row, or says what is wrong with it."""
    vector = np.array(query.vector)
    length = np.linalg.norm(vector)
    if vector.size != row.size or not 0 < length < np.inf:
        return InvalidRequest(f"vector: expected {row.size} finite numbers, not all zero")
    row[:] = vector / length
    return None


if __name__ == "__main__":
    batching.run(server, *sys.argv[1:])
