"""Every metric that Shoal's own processes export, in one place: the contract that docs/reference/metrics.md shows.

Base units; a label is a name from the service's own files or a word of the code's, never a caller's, so cardinality
stays bounded. The text of a measured time says the moments at which it starts and ends.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from shoal.observe.histogram import Histogram

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BYTES = tuple(4**n for n in range(6, 14))


def _registry() -> CollectorRegistry:
    """And the process's own CPU time, memory, open files and start."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


BATCHER = _registry()
WORKER = _registry()
PIPELINE = _registry()
MODEL_SYNC = _registry()

BATCHER_REQUESTS = Counter(
    "shoal_batcher_requests",
    "Requests that ended, by gRPC status code; CANCELLED: the caller left. Model - : no worker has vouched for it yet.",
    ["model", "code", "priority"],
    registry=BATCHER,
)
BATCHER_LATENCY = Histogram(
    "shoal_batcher_request_seconds",
    "From a request's arrival in the batcher to its answer, of requests answered OK.",
    ["model", "priority"],
    buckets=_SECONDS,
    registry=BATCHER,
)
BATCHER_QUEUE = Histogram(
    "shoal_batcher_queue_seconds",
    "From a request's arrival in the batcher to its dispatch on a worker's stream; counted again if it is sent again.",
    ["model", "priority"],
    buckets=_SECONDS,
    registry=BATCHER,
)
BATCHER_REQUEST_BYTES = Counter(
    "shoal_batcher_request_bytes", "Bytes of requests dispatched to workers: references.", ["model"], registry=BATCHER
)
BATCHER_ANSWER_BYTES = Counter(
    "shoal_batcher_answer_bytes", "Bytes of answers that came from workers.", ["model"], registry=BATCHER
)
BATCHER_BATCH_SIZE = Histogram(
    "shoal_batcher_batch_size", "Requests in a batch when it closes.", ["model"], buckets=_SIZES, registry=BATCHER
)
BATCHER_CLOSED = Counter(
    "shoal_batcher_batches_closed",
    "Batches, by what closed them: preferred (size), delay, objective, enough (company would save nothing), bulk "
    "(requests that fill it), deadline, drain, or alone (a request whose stream broke).",
    ["model", "reason"],
    registry=BATCHER,
)
BATCHER_DEPTH = Gauge(
    "shoal_batcher_queue_depth", "Requests that wait for a worker's permit, now.", ["model"], registry=BATCHER
)
BATCHER_IN_FLIGHT = Gauge(
    "shoal_batcher_in_flight", "Requests that were sent to a worker and have no answer, now.", ["model"],
    registry=BATCHER,
)  # fmt: skip
BATCHER_STREAMS = Gauge(
    "shoal_batcher_streams",
    "Batching streams now, by what they do: parked (no permit), permitted, in use or retiring.",
    ["model", "state"],
    registry=BATCHER,
)
BATCHER_RESENT = Counter(
    "shoal_batcher_resent", "Requests queued again because their stream broke.", ["model"], registry=BATCHER
)
BATCHER_GIVEN_UP = Counter(
    "shoal_batcher_given_up",
    "Requests answered UNAVAILABLE because a stream broke under them twice, the second time alone.",
    ["model"],
    registry=BATCHER,
)

WORKER_REQUESTS = Counter(
    "shoal_worker_requests",
    "Items that got their result, by gRPC status code and priority.",
    ["model", "code", "priority"],
    registry=WORKER,
)
WORKER_FETCHES = Counter(
    "shoal_worker_fetches",
    "Fetches of a picture that ended, by gRPC status code: NOT_FOUND, INVALID_ARGUMENT (empty or too large), "
    "UNAVAILABLE (store away or slow), DEADLINE_EXCEEDED, INTERNAL (credentials refused).",
    ["model", "code"],
    registry=WORKER,
)
WORKER_FETCH_RETRIES = Counter(
    "shoal_worker_fetch_retries", "GETs tried again because the object store failed one.", registry=WORKER
)
WORKER_FETCH = Histogram(
    "shoal_worker_fetch_seconds",
    "From the wait for one of fetch_concurrency turns to the last byte of one picture, retries included; of fetches "
    "that succeeded.",
    ["model"],
    buckets=_SECONDS,
    registry=WORKER,
)
WORKER_FETCH_BYTES = Histogram(
    "shoal_worker_fetch_bytes", "One picture as fetched: JPEG bytes.", ["model"], buckets=_BYTES, registry=WORKER
)
WORKER_DECODE = Histogram(
    "shoal_worker_decode_seconds",
    "In a decoding thread or a process of its own, from the start of decoding one picture to its last pixel, resizing "
    "included.",
    ["model"],
    buckets=_SECONDS,
    registry=WORKER,
)
WORKER_DEVICE_DECODE = Histogram(
    "shoal_worker_device_decode_seconds",
    "Of a batch's JPEGs all together, as told by the runner of a model that decodes them on its device: from the start "
    "of decoding to the last pixel, resizing included.",
    ["model"],
    buckets=_SECONDS,
    registry=WORKER,
)
WORKER_DECODES = Counter(
    "shoal_worker_decodes",
    "Pictures, by the way they were decoded: device (by the model's runner, some in vain) or cpu (by the worker).",
    ["model", "way"],
    registry=WORKER,
)
WORKER_DECODE_THREADS = Gauge(
    "shoal_worker_decode_threads", "Pictures that the worker can decode at once.", registry=WORKER
)
WORKER_DECODERS = Counter(
    "shoal_worker_decoders",
    "Pictures that had a process of their own, by outcome: decoded, refused (damaged), memory or cpu (over the limit), "
    "crashed, killed (from outside, or it had no CPU time), left (no caller waited any more).",
    ["outcome"],
    registry=WORKER,
)
WORKER_INTAKE_BYTES = Gauge(
    "shoal_worker_intake_bytes",
    "Bytes of pictures that calls bring along, held until they are stored.",
    registry=WORKER,
)
WORKER_FETCHED_BYTES = Gauge(
    "shoal_worker_fetched_bytes", "Bytes of pictures that are being fetched or wait to be decoded, now.",
    registry=WORKER,
)  # fmt: skip
WORKER_PICTURE_CACHE = Counter(
    "shoal_worker_picture_cache_fetches",
    "Fetches, by what the worker's picture cache did for them: recent (new enough for its caller, unasked), "
    "hit (the store said that what is kept is current), shared (another request's fetch brought it) or miss.",
    ["outcome"],
    registry=WORKER,
)
WORKER_PICTURE_CACHE_EVICTIONS = Counter(
    "shoal_worker_picture_cache_evictions", "Pictures that left the picture cache for room.", registry=WORKER
)
WORKER_PICTURE_CACHE_BYTES = Gauge(
    "shoal_worker_picture_cache_bytes", "Memory of the pictures in the picture cache, pixels included, now.",
    registry=WORKER,
)  # fmt: skip
WORKER_TENSOR_BYTES = Counter(
    "shoal_worker_tensor_bytes", "Bytes of decoded pictures written into batches.", ["model"], registry=WORKER
)
WORKER_RESULT_CACHE_LOOKUPS = Counter(
    "shoal_worker_result_cache_lookups",
    "Fetched pictures whose content was looked up in the model's result cache: hit (answered from it) or miss.",
    ["model", "outcome"],
    registry=WORKER,
)
WORKER_RESULT_CACHE_EVICTIONS = Counter(
    "shoal_worker_result_cache_evictions",
    "Answers that left the model's result cache: for room, or since they had expired.",
    ["model", "reason"],
    registry=WORKER,
)
WORKER_RESULT_CACHE_BYTES = Gauge(
    "shoal_worker_result_cache_bytes", "Memory of the answers in the model's result cache, now.", ["model"],
    registry=WORKER,
)  # fmt: skip
WORKER_QUEUE = Histogram(
    "shoal_worker_queue_seconds",
    "From a batch being ready to its start on an instance of its model. One with any interactive item is interactive.",
    ["model", "priority"],
    buckets=_SECONDS,
    registry=WORKER,
)
WORKER_COMPUTE = Histogram(
    "shoal_worker_compute_seconds",
    "From a batch's start on an instance to its outputs; with Triton, from its turn there to Triton's answer. Of "
    "several processes beside one Triton none knows the others' batches, and a wait behind those counts.",
    ["model"],
    buckets=_SECONDS,
    registry=WORKER,
)
WORKER_BATCH_SIZE = Histogram(
    "shoal_worker_batch_size", "Items in an executed batch.", ["model"], buckets=_SIZES, registry=WORKER
)
WORKER_BATCH_LIMIT = Gauge(
    "shoal_worker_batch_limit", "Items in the largest batch that the model takes.", ["model"], registry=WORKER
)
WORKER_INSTANCES = Gauge(
    "shoal_worker_instances",
    "Batches of the model that execute at once; of several processes beside one Triton, each tells its part.",
    ["model"],
    registry=WORKER,
)
WORKER_BATCHES = Gauge(
    "shoal_worker_batches_in_flight",
    "Permits in use now: batches that have items, by the priority of their streams.",
    ["model", "priority"],
    registry=WORKER,
)
WORKER_PERMITS = Gauge(
    "shoal_worker_permit_limit",
    "Batches that the worker takes at once; bulk has what interactive ones leave, and always one.",
    ["model"],
    registry=WORKER,
)
WORKER_PERMIT_SECONDS = Counter(
    "shoal_worker_permit_seconds",
    "Time that permits were in use, each from its batch's first items to its first answers; counted when it ends.",
    ["model", "priority"],
    registry=WORKER,
)

PIPELINE_PICTURES = Counter(
    "shoal_pipeline_pictures",
    "Pictures that got their answer, by gRPC status code; CANCELLED: the caller left.",
    ["pipeline", "code", "priority"],
    registry=PIPELINE,
)
PIPELINE_SECONDS = Histogram(
    "shoal_pipeline_picture_seconds",
    "From a picture's arrival in the pipeline's process to its whole answer, of pictures answered OK.",
    ["pipeline", "priority"],
    buckets=_SECONDS,
    registry=PIPELINE,
)
PIPELINE_BOXES = Histogram(
    "shoal_pipeline_boxes", "Boxes of the first step that were kept, of pictures answered OK.", ["pipeline"],
    buckets=_SIZES, registry=PIPELINE,
)  # fmt: skip
PIPELINE_CALLS = Counter(
    "shoal_pipeline_calls",
    "Calls of a step's model, one for each part of a picture, by gRPC status code.",
    ["pipeline", "step", "code"],
    registry=PIPELINE,
)
PIPELINE_NOT_ASKED = Counter(
    "shoal_pipeline_parts_not_asked",
    "Parts of pictures answered DEADLINE_EXCEEDED without a call, since there was no time for one.",
    ["pipeline", "step"],
    registry=PIPELINE,
)
PIPELINE_STEP_SECONDS = Histogram(
    "shoal_pipeline_step_seconds",
    "From a step's first call for a picture to its last answer.",
    ["pipeline", "step"],
    buckets=_SECONDS,
    registry=PIPELINE,
)
PIPELINE_IN_FLIGHT = Gauge(
    "shoal_pipeline_in_flight", "Pictures that are being looked at, now.", ["pipeline"], registry=PIPELINE
)

SYNC_MODELS = Gauge(
    "shoal_model_sync_models", "Models now, by whether they are here or refused.", ["state"], registry=MODEL_SYNC
)
SYNC_SWITCHES = Counter(
    "shoal_model_sync_switches", "Times that a model was switched to other files.", ["model"], registry=MODEL_SYNC
)
SYNC_REFUSED = Counter(
    "shoal_model_sync_refused", "Publications refused as damaged or faulty.", ["model"], registry=MODEL_SYNC
)
SYNC_BYTES = Counter(
    "shoal_model_sync_fetched_bytes", "Bytes fetched from the store of published models.", registry=MODEL_SYNC
)
SYNC_LOOKS = Counter(
    "shoal_model_sync_looks", "Times that the store was looked at: done or failed.", ["outcome"], registry=MODEL_SYNC
)
SYNC_SUCCESS = Gauge(
    "shoal_model_sync_success_timestamp_seconds",
    "Unix time of the end of the last look after which all was in line with the store.",
    registry=MODEL_SYNC,
)


def text(registry: CollectorRegistry) -> bytes:
    """What ``/metrics`` answers, in Prometheus' text format."""
    disable_created_metrics()
    return generate_latest(registry)
