"""Every metric that Shoal's own processes export, in one place.

Base units; a label is a name from the service's own files, never a caller's, so cardinality stays bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from shoal.topology import Endpoint

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BYTES = tuple(4**n for n in range(6, 14))

BATCHER_REQUESTS = Counter(
    "shoal_batcher_requests", "Requests that the batcher answered, by gRPC status code.", ["model", "code"]
)
BATCHER_QUEUE = Histogram(
    "shoal_batcher_queue_seconds", "From a request's arrival to its dispatch to a worker.", ["model"], buckets=_SECONDS
)
BATCHER_BATCH_SIZE = Histogram("shoal_batcher_batch_size", "Requests in a closed batch.", ["model"], buckets=_SIZES)
BATCHER_CLOSED = Counter("shoal_batcher_batches_closed", "Batches, by what closed them.", ["model", "reason"])
BATCHER_DEPTH = Gauge("shoal_batcher_queue_depth", "Requests waiting for a worker.", ["model"])
BATCHER_IN_FLIGHT = Gauge("shoal_batcher_in_flight", "Requests at a worker.", ["model"])
BATCHER_STREAMS = Gauge("shoal_batcher_streams", "Batching streams by what they do.", ["model", "state"])
BATCHER_RESENT = Counter("shoal_batcher_resent", "Requests sent again because their stream broke.", ["model"])

WORKER_REQUESTS = Counter(
    "shoal_worker_requests", "Requests that the worker answered, by gRPC status code.", ["model", "code"]
)
WORKER_FETCH = Histogram("shoal_worker_fetch_seconds", "Fetching one picture.", buckets=_SECONDS)
WORKER_FETCH_BYTES = Histogram("shoal_worker_fetch_bytes", "One picture as fetched.", buckets=_BYTES)
WORKER_DECODE = Histogram("shoal_worker_decode_seconds", "Decoding and resizing one picture.", buckets=_SECONDS)
WORKER_QUEUE = Histogram(
    "shoal_worker_queue_seconds", "A ready batch's wait for a free instance of its model.", ["model"], buckets=_SECONDS
)
WORKER_COMPUTE = Histogram("shoal_worker_compute_seconds", "Executing one batch.", ["model"], buckets=_SECONDS)
WORKER_BATCH_SIZE = Histogram("shoal_worker_batch_size", "Items in an executed batch.", ["model"], buckets=_SIZES)
WORKER_BATCHES = Gauge("shoal_worker_batches_in_flight", "Batches that hold a permit and have items.", ["model"])
WORKER_PERMITS = Gauge("shoal_worker_permit_limit", "Batches that the worker takes at once.", ["model"])

SYNC_MODELS = Gauge("shoal_model_sync_models", "Models, by whether they are here or refused.", ["state"])
SYNC_SWITCHES = Counter("shoal_model_sync_switches", "Times that a model was switched to other files.", ["model"])
SYNC_REFUSED = Counter("shoal_model_sync_refused", "Publications that were refused as damaged or faulty.", ["model"])
SYNC_BYTES = Counter("shoal_model_sync_fetched_bytes", "Fetched from the store of published models.")
SYNC_LOOKS = Counter("shoal_model_sync_looks", "Times that the store was looked at, by what came of it.", ["outcome"])
SYNC_SUCCESS = Gauge("shoal_model_sync_success_timestamp_seconds", "When all was last in line with the store.")


def serve_metrics(endpoint: Endpoint) -> WSGIServer:
    """Serves ``/metrics`` from a thread for as long as the process lives, or until ``shutdown`` and ``server_close``.

    Raises:
        ConfigurationError: naming the port.
    """
    try:
        server, _ = start_http_server(endpoint.port, endpoint.host)
    except OSError as error:
        raise ConfigurationError(f"can't serve metrics on {endpoint}: {error.strerror}") from error
    return server
