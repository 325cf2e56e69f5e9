"""A part's address for its operators: ``/metrics``, and what else it tells of itself beside it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError, InvalidRequest
from shoal.explain import MODELS_PATH, PATH, RECENT_PATH
from shoal.pictures.reference import canonical_uuid
from shoal.runtime import ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from aiohttp import web
    from prometheus_client import CollectorRegistry
    from pydantic import BaseModel

    from shoal.explain.views import Answer, Glances
    from shoal.observe.operators import OperatorServer, Work
    from shoal.runtime.endpoint import Endpoint


_NO_STORE = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class Beside:
    """What else than ``/requests/<uuid>`` a part tells beside its metrics; called in threads of their own."""

    glances: Callable[[AbstractSet[str]], Glances] | None = None
    """A batcher's requests that were slow or failed, of keys by id."""
    models: Callable[[], BaseModel] | None = None
    """What a worker serves."""

    def work(self) -> dict[str, Work]:
        """By the beginning of the path."""
        from shoal.observe.operators import Work  # see serve_soon

        told = {}
        if glances := self.glances:
            told[RECENT_PATH] = Work(_keys_named, lambda keys: _json(glances(set(keys.split()))))
        if models := self.models:
            told[MODELS_PATH] = Work(lambda _: "", lambda _: _json(models()))
        return told


NOTHING = Beside()


def serve(
    listen: Endpoint | socket.socket,
    registry: CollectorRegistry,
    explain: Callable[[str], Answer],
    beside: Beside = NOTHING,
) -> OperatorServer:
    """Serves in a thread until the process ends, or ``close``.

    Args:
        listen: The address; port 0 takes a free one. Or what listens already.
        registry: The part's metrics.
        explain: What the part remembers of a uuid; called in a thread of its own.
        beside: What else it tells.

    Raises:
        ConfigurationError: the port is taken.
    """
    from shoal.observe.operators import OperatorServer, Work, metrics_of  # see serve_soon

    asked = Work(lambda request: request.path.removeprefix(PATH), partial(_answer, explain))
    return OperatorServer(listen, {PATH: asked, **beside.work(), "/": metrics_of(registry)})


def serve_soon(
    listen: Endpoint, registry: CollectorRegistry, explain: Callable[[str], Answer], beside: Beside = NOTHING
) -> None:
    """Serves while the part begins its own work: aiohttp takes as long to import as a batcher does.

    It listens at once; whoever asks waits for a moment.

    Raises:
        ConfigurationError: the port is taken.
    """
    try:
        listener = socket.create_server(listen, family=ports.family(listen))
    except OSError as error:
        raise ConfigurationError(f"can't serve metrics on {listen}: {error.strerror}") from error
    Thread(target=serve, args=(listener, registry, explain, beside), name="operators' start", daemon=True).start()


def _answer(explain: Callable[[str], Answer], image_uuid: str) -> web.Response:
    from aiohttp import web  # as above

    try:
        answer = explain(canonical_uuid(image_uuid))
    except InvalidRequest as error:
        return web.json_response({"error": str(error)}, status=HTTPStatus.BAD_REQUEST, headers=_NO_STORE)
    return _json(answer, HTTPStatus.OK if answer.batcher or answer.worker else HTTPStatus.NOT_FOUND)


def _keys_named(request: web.BaseRequest) -> str:
    """In one order, so that who asks the same shares an answer."""
    return " ".join(sorted(set(request.query.getall("key", []))))


def _json(told: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    from aiohttp import web  # as above

    text = told.model_dump_json()
    return web.Response(text=text, status=status, headers=_NO_STORE, content_type="application/json")
