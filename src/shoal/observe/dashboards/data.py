"""Data moved: the few bytes that queue, the pictures that move once, the tensors that never leave the worker's pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe.dashboards.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    OF_ROUTER,
    OF_SERVICE,
    PER_SECOND,
    RATE,
    SECONDS,
    SERVICE,
    Query,
    board,
    figure,
    lines,
    quantiles,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    from shoal.observe.dashboards.panels import AnyPanel

_REFERENCES = f"sum(rate(shoal_batcher_request_bytes_total{{{OF_SERVICE}}}[{RATE}]))"
_ANSWERS = f"sum(rate(shoal_batcher_answer_bytes_total{{{OF_SERVICE}}}[{RATE}]))"
_PICTURES = f"sum(rate(shoal_worker_fetch_bytes_sum{{{OF_SERVICE}}}[{RATE}]))"
_TENSORS = f"sum(rate(shoal_worker_tensor_bytes_total{{{OF_SERVICE}}}[{RATE}]))"
_DISPATCHED = f"sum(rate(shoal_batcher_queue_seconds_count{{{OF_SERVICE}}}[{RATE}]))"
_FETCHED = f"sum(rate(shoal_worker_fetch_bytes_count{{{OF_SERVICE}}}[{RATE}]))"
_DECODED = f"sum(rate(shoal_worker_decode_seconds_count{{{OF_SERVICE}}}[{RATE}]))"


def data_moved() -> Dashboard:
    """Which service it is about is chosen at the top."""
    return board(
        "shoal-data",
        "Shoal: data moved",
        "Bytes of references, pictures and tensors, and the object store that pictures come from.",
        [SERVICE],
        [
            ("A request, in bytes", _sizes()),
            ("Bytes a second", _rates()),
            ("Fetching", _fetching()),
            ("The workers' picture caches", _picture_cache()),
        ],
    )


def _sizes() -> list[AnyPanel]:
    return [
        figure(
            "Reference",
            BYTES,
            Query(f"{_REFERENCES} / {_DISPATCHED}", "bytes"),
            text="Mean message of a request: what queues and what the load balancer moves.",
        ),
        figure(
            "Picture",
            BYTES,
            Query(f"{_PICTURES} / {_FETCHED}", "bytes"),
            text="Mean JPEG: moves once, from the store to the worker.",
        ),
        figure(
            "Tensor",
            BYTES,
            Query(f"{_TENSORS} / {_DECODED}", "bytes"),
            text="Mean decoded picture as the model takes it: never leaves the worker's pod.",
        ),
        figure(
            "Answer",
            BYTES,
            Query(f'{_ANSWERS} / sum(rate(shoal_batcher_requests_total{{{OF_SERVICE}, code="OK"}}[{RATE}]))', "bytes"),
            text="Mean answer.",
        ),
        figure(
            "Pictures to references",
            COUNT,
            Query(f"{_PICTURES} / {_REFERENCES}", "times"),
            text="How many times more would go through router, queue and load balancer with pictures in the messages.",
        ),
        figure(
            "Tensors to references",
            COUNT,
            Query(f"{_TENSORS} / {_REFERENCES}", "times"),
            text="And with tensors in the messages, uint8 at the model's size as here.",
        ),
    ]


def _rates() -> list[AnyPanel]:
    public = f'{OF_ROUTER}, envoy_http_conn_manager_prefix="public"'
    return [
        lines(
            "References and answers",
            BYTES_PER_SECOND,
            Query(_REFERENCES, "references"),
            Query(_ANSWERS, "answers"),
            text="Between batchers and workers.",
        ),
        lines(
            "Pictures and tensors",
            BYTES_PER_SECOND,
            Query(_PICTURES, "pictures fetched"),
            Query(_TENSORS, "tensors written"),
            text="Into the workers, and inside them.",
        ),
        lines(
            "At the router's door",
            BYTES_PER_SECOND,
            Query(f"sum(rate(envoy_http_downstream_cx_rx_bytes_total{{{public}}}[{RATE}]))", "from clients"),
            Query(f"sum(rate(envoy_http_downstream_cx_tx_bytes_total{{{public}}}[{RATE}]))", "to clients"),
            text="With headers. Pictures go to the object store, not through here.",
        ),
    ]


def _picture_cache() -> list[AnyPanel]:
    return [
        lines(
            "Fetches by what the cache did",
            PER_SECOND,
            Query(
                f"sum by (outcome) (rate(shoal_worker_picture_cache_fetches_total{{{OF_SERVICE}}}[{RATE}]))",
                "{{outcome}}",
            ),
            text="hit: the store said that what is kept is current. shared: another request's fetch brought it. miss: "
            "it moved.",
            stacked=True,
        ),
        lines(
            "Memory",
            BYTES,
            Query(f"sum by (instance) (shoal_worker_picture_cache_bytes{{{OF_SERVICE}}})", "{{instance}}"),
            text="Of each worker, pixels included; picture_cache_bytes bounds it.",
        ),
        lines(
            "Evictions",
            PER_SECOND,
            Query(f"sum(rate(shoal_worker_picture_cache_evictions_total{{{OF_SERVICE}}}[{RATE}]))", "pictures"),
            text="For room. Many beside few hits: a larger picture_cache_bytes would help.",
        ),
    ]


def _fetching() -> list[AnyPanel]:
    return [
        lines(
            "Fetch time",
            SECONDS,
            *quantiles("shoal_worker_fetch_seconds", OF_SERVICE, 0.5, 0.9, 0.99),
            text="One picture; the wait for a turn and retries included.",
            width=6,
        ),
        lines(
            "Fetches by outcome",
            PER_SECOND,
            Query(f"sum by (code) (rate(shoal_worker_fetches_total{{{OF_SERVICE}}}[{RATE}])) > 0", "{{code}}"),
            text="NOT_FOUND: no such picture. UNAVAILABLE: the store. INTERNAL: our credentials.",
            width=6,
            stacked=True,
        ),
        lines(
            "Retries",
            PER_SECOND,
            Query(f"sum(rate(shoal_worker_fetch_retries_total{{{OF_SERVICE}}}[{RATE}]))", "GETs tried again"),
            text="What callers don't see yet: the store fails now and then.",
            width=6,
        ),
        lines(
            "Picture size",
            BYTES,
            *quantiles("shoal_worker_fetch_bytes", OF_SERVICE, 0.5, 0.9, 0.99),
            text="JPEG bytes; max_image_bytes bounds them.",
            width=6,
        ),
    ]
