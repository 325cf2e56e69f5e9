"""LitServe: FastAPI processes in front of worker processes, each of which batches for itself.

Settings, after https://lightning.ai/docs/litserve/api-reference/litserver and
https://lightning.ai/docs/litserve/features/batching:

- ``workers_per_device``: "for CPU, set to the number of cores"; one more is tried, too.
- ``num_api_servers``: as many as workers by default ("recommended"); one is tried, too.
- ``fast_queue`` (ZeroMQ): "use when serving hundreds of requests per second".
- ``batch_timeout`` 5 ms, as Shoal's model has. 0 is no choice: it makes a worker spin.
- The body is the picture's bytes; the page on speed sends base64 in JSON, a third more bytes, at twice the CPU time.
"""

from __future__ import annotations

from benchmarks.peers.environments import Environment
from benchmarks.peers.peer import HttpPeer
from benchmarks.peers.servers.plan import Choice

_CHOICES = (
    Choice("2 workers"),
    Choice("2 workers, fast queue", options={"fast_queue": True}),
    Choice("2 workers, 1 API server, fast queue", options={"fast_queue": True, "api_servers": 1}),
    Choice("3 workers, 1 API server, fast queue", processes=3, options={"fast_queue": True, "api_servers": 1}),
    Choice("2 workers, batches of 4", batch_size=4),
)

LITSERVE = HttpPeer(
    "litserve",
    "LitServe",
    Environment("litserve", ("litserve==0.2.19",)),
    _CHOICES,
    "benchmarks.peers.servers.litserve_server",
    "/predict",
)
