"""The listener before the managed object store: a presigned PUT says where a picture goes, but not how large it may be.

rclone takes any size, so Envoy stands before it and reads each upload's Content-Length. Nothing is held back: the bytes
stream on, and the Host header stays, so that the signature holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.router.resources import method, typed

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import ObjectStore

UPLOADS = "uploads"
"""The listener and its routes."""
STORE = "store"
"""The managed object store's cluster."""
MAX_CONNECTIONS = 1000
"""Connections of clients that upload; about as many as Envoy itself opens to one cluster."""

MOST_SECONDS = 600.0
"""A picture of 20 MiB comes in by then at 35 kB/s; a byte now and then does not go on for ever."""

_NO_PUT = "pictures are brought here, by PUT to a URL that shoal.v1.Uploads/Create answered; nothing else is done here"
_NO_LENGTH = "an upload must say its size in Content-Length"
_IDLE = "30s"


def routes(store: ObjectStore) -> Json:
    """The route configuration: PUTs of a size that is told, and is one that a worker would fetch."""
    return {
        "name": UPLOADS,
        "virtual_hosts": [
            {
                "name": UPLOADS,
                "domains": ["*"],
                "routes": [
                    _refusal([{**_PUT, "invert_match": True}], 405, _NO_PUT),
                    *sized(store),
                ],
            }
        ],
    }


def sized(store: ObjectStore, **how: object) -> list[Json]:
    """What becomes of a PUT, by the size that it tells; ``how``: more of the route that it goes on by."""
    most = store.max_image_bytes
    small = {"name": "content-length", "range_match": {"start": 0, "end": most + 1}}
    told = {"name": "content-length", "present_match": True}
    return [
        {
            "match": {"prefix": "/", "headers": [small]},
            "route": {"cluster": STORE, "timeout": "0s", "idle_timeout": _IDLE, **how},
        },
        _refusal([told], 413, f"a picture may have {most} bytes (object_store.max_image_bytes)"),
        _refusal([], 411, _NO_LENGTH),
    ]


def cluster(load_assignment: Json) -> Json:
    """The store. HTTP/1.1 is all that rclone speaks."""
    return typed("envoy.config.cluster.v3.Cluster", name=STORE, connect_timeout="1s", load_assignment=load_assignment)


_PUT = method("PUT")


def _refusal(headers: list[Json], status: int, text: str) -> Json:
    return {
        "match": {"prefix": "/", **({"headers": headers} if headers else {})},
        "direct_response": {"status": status, "body": {"inline_string": text}},
    }
