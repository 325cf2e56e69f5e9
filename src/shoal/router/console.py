"""The console's routes: its page, which needs no key, and its questions and uploads, which do.

Envoy answers the page's files itself. Questions go to the process that keeps Envoy's files, over a Unix socket beside
the admin one. Uploads go on to the managed store: so a browser anywhere needs this port alone, and no CORS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from shoal.console import page, server
from shoal.console.status import uploads_here
from shoal.router import uploads
from shoal.router.key_checks import RATE_LIMIT
from shoal.router.refusals import BODY_LIMIT
from shoal.router.resources import header, method, off, pipe, seconds, typed

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import ObjectStore, Service
    from shoal.service.topology import Topology

CONSOLE: Final = "console"
"""The cluster of the process that answers the page's questions."""
MOST_QUESTIONS: Final = 100
"""At a time; more are refused."""
_ANSWER_SECONDS: Final = 10.0


def socket_of(admin: Path) -> Path:
    """Beside the admin socket; no longer than that."""
    return admin.with_name("page.sock")


def cluster(admin: Path) -> Json:
    """The process that keeps Envoy's files."""
    endpoint = {"endpoint": {"address": pipe(socket_of(admin))}}
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=CONSOLE,
        connect_timeout="1s",
        load_assignment={"cluster_name": CONSOLE, "endpoints": [{"lb_endpoints": [endpoint]}]},
        circuit_breakers={"thresholds": [{"max_requests": MOST_QUESTIONS, "max_pending_requests": MOST_QUESTIONS}]},
    )


def routes(service: Service, topology: Topology, keyless: Json) -> list[Json]:
    """Those of the public listener; ``keyless`` lets a route be taken without a key. None where there is no console."""
    if not service.router.console:
        return []
    headers = page.headers(service.object_store)
    return [
        *(_file(path, file, headers, keyless) for path, file in page.files().items()),
        _question({"path": server.STATUS_PATH}),
        _question({"prefix": server.REQUESTS_PATH}),
        *(_uploads(service.object_store, topology) if uploads_here(topology) else []),
    ]


def _file(path: str, file: page.File, headers: dict[str, str], keyless: Json) -> Json:
    told = {"content-type": file.content_type, **headers}
    return {
        "match": {"path": path, "headers": [method("GET")]},
        "direct_response": {"status": 200, "body": {"inline_string": file.text}},
        "response_headers_to_add": [header(name, value.replace("%", "%%")) for name, value in told.items()],
        **keyless,
    }


def _question(match: Json) -> Json:
    """Asked every second or two, so it takes nothing of the key's calls: all who look share what parts are asked."""
    return {
        "match": {**match, "headers": [method("GET")]},
        "route": {"cluster": CONSOLE, "timeout": seconds(_ANSWER_SECONDS)},
        "typed_per_filter_config": {RATE_LIMIT: off(), BODY_LIMIT: off()},
    }


def _uploads(store: ObjectStore, topology: Topology) -> list[Json]:
    """PUTs to presigned URLs, with the host that was signed; refused as the uploads' own listener would."""
    match = {
        "prefix": f"/{urlsplit(store.url).netloc}/",
        "headers": [method("PUT")],
        "query_parameters": [{"name": "X-Amz-Signature", "present_match": True}],
    }
    most = {"max_stream_duration": seconds(uploads.MOST_SECONDS)}
    unbounded = {"typed_per_filter_config": {RATE_LIMIT: off(), BODY_LIMIT: off()}}
    return [
        {**route, **unbounded, "match": {**match, "headers": [*match["headers"], *route["match"].get("headers", [])]}}
        for route in uploads.sized(store, host_rewrite_literal=str(topology.uploads), max_stream_duration=most)
    ]
