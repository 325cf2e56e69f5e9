"""A part's address for its operators: ``/metrics``, and ``/requests/<uuid>`` beside it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from shoal.errors import InvalidRequest
from shoal.observe.metrics import serve_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.simple_server import WSGIServer
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

    from shoal.explain.views import Answer
    from shoal.topology import Endpoint

PREFIX = "/requests/"


def serve(listen: Endpoint, registry: CollectorRegistry, explain: Callable[[str], Answer]) -> WSGIServer:
    """Serves in threads until the process ends, or ``shutdown`` and ``server_close``.

    Args:
        listen: The address; port 0 takes a free one.
        registry: The part's metrics.
        explain: What the part remembers of a uuid; any thread may call it.

    Raises:
        ConfigurationError: the port is taken.
    """
    server = serve_metrics(listen, registry)
    metrics = server.get_app()
    assert metrics is not None
    server.set_app(_application(metrics, explain))
    return server


def _application(metrics: WSGIApplication, explain: Callable[[str], Answer]) -> WSGIApplication:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if not path.startswith(PREFIX):
            return metrics(environ, start_response)
        status, body = HTTPStatus.METHOD_NOT_ALLOWED, json.dumps({"error": "only GET"})
        if environ["REQUEST_METHOD"] == "GET":
            status, body = _answer(path.removeprefix(PREFIX), explain)
        headers = [("content-type", "application/json"), ("cache-control", "no-store"), ("allow", "GET")]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body.encode()]

    return application


def _answer(text: str, explain: Callable[[str], Answer]) -> tuple[HTTPStatus, str]:
    from shoal.explain.views import canonical_uuid  # noqa: PLC0415 - only who is asked pays for pydantic

    try:
        answer = explain(canonical_uuid(text))
    except InvalidRequest as error:
        return HTTPStatus.BAD_REQUEST, json.dumps({"error": str(error)})
    status = HTTPStatus.OK if answer.batcher or answer.worker else HTTPStatus.NOT_FOUND
    return status, answer.model_dump_json()
