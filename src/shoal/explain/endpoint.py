"""A part's address for its operators: ``/metrics``, and ``/requests/<uuid>`` beside it."""

from __future__ import annotations

import json
import socket
from functools import partial
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError, InvalidRequest
from shoal.explain import PATH
from shoal.pictures.reference import canonical_uuid
from shoal.runtime import ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web
    from prometheus_client import CollectorRegistry

    from shoal.explain.views import Answer
    from shoal.observe.operators import OperatorServer
    from shoal.runtime.endpoint import Endpoint


def serve(
    listen: Endpoint | socket.socket, registry: CollectorRegistry, explain: Callable[[str], Answer]
) -> OperatorServer:
    """Serves in a thread until the process ends, or ``close``.

    Args:
        listen: The address; port 0 takes a free one. Or what listens already.
        registry: The part's metrics.
        explain: What the part remembers of a uuid; called in a thread of its own.

    Raises:
        ConfigurationError: the port is taken.
    """
    from shoal.observe.operators import OperatorServer, Work, metrics_of  # see serve_soon

    asked = Work(lambda request: request.path.removeprefix(PATH), partial(_answer, explain))
    return OperatorServer(listen, {PATH: asked, "/": metrics_of(registry)})


def serve_soon(listen: Endpoint, registry: CollectorRegistry, explain: Callable[[str], Answer]) -> None:
    """Serves while the part begins its own work: aiohttp takes as long to import as a batcher does.

    It listens at once; whoever asks waits for a moment.

    Raises:
        ConfigurationError: the port is taken.
    """
    try:
        listener = socket.create_server(listen, family=ports.family(listen))
    except OSError as error:
        raise ConfigurationError(f"can't serve metrics on {listen}: {error.strerror}") from error
    Thread(target=serve, args=(listener, registry, explain), name="operators' start", daemon=True).start()


def _answer(explain: Callable[[str], Answer], image_uuid: str) -> web.Response:
    from aiohttp import web  # as above

    try:
        answer = explain(canonical_uuid(image_uuid))
    except InvalidRequest as error:
        text, status = json.dumps({"error": str(error)}), HTTPStatus.BAD_REQUEST
    else:
        text = answer.model_dump_json()
        status = HTTPStatus.OK if answer.batcher or answer.worker else HTTPStatus.NOT_FOUND
    no_store = {"cache-control": "no-store"}
    return web.Response(text=text, status=status, headers=no_store, content_type="application/json")
