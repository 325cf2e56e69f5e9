"""A part's address for its operators: ``/metrics``, and ``/requests/<uuid>`` beside it."""

from __future__ import annotations

import json
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from shoal.errors import InvalidRequest
from shoal.observe.operators import OperatorServer, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from shoal.explain.views import Answer
    from shoal.topology import Endpoint

PREFIX = "/requests/"


def serve(listen: Endpoint, registry: CollectorRegistry, explain: Callable[[str], Answer]) -> OperatorServer:
    """Serves in a thread until the process ends, or ``close``.

    Args:
        listen: The address; port 0 takes a free one.
        registry: The part's metrics.
        explain: What the part remembers of a uuid; called in a thread of its own.

    Raises:
        ConfigurationError: the port is taken.
    """
    return OperatorServer(listen, {PREFIX: partial(_answer, explain), "/": metrics_of(registry)})


def _answer(explain: Callable[[str], Answer], request: web.BaseRequest) -> web.Response:
    from shoal.explain.views import canonical_uuid  # noqa: PLC0415 - only who is asked pays for pydantic

    try:
        answer = explain(canonical_uuid(request.path.removeprefix(PREFIX)))
    except InvalidRequest as error:
        text, status = json.dumps({"error": str(error)}), HTTPStatus.BAD_REQUEST
    else:
        text = answer.model_dump_json()
        status = HTTPStatus.OK if answer.batcher or answer.worker else HTTPStatus.NOT_FOUND
    no_store = {"cache-control": "no-store"}
    return web.Response(text=text, status=status, headers=no_store, content_type="application/json")
