"""What callers can ask about models: the router's own list, and what the model's worker knows of it.

Besides Shoal's own there are the paths of the Open Inference Protocol
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md), but not of its
inference, whose tensors Shoal doesn't take.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.errors import Code
from shoal.router.clusters import pipeline_cluster, pool_cluster
from shoal.router.health import HEALTH, V2_READY
from shoal.router.json_methods import MODELS_PATH
from shoal.router.openapi import document
from shoal.router.refusals import BODY_LIMIT, REQUESTED_MODEL, model_missing, refusal
from shoal.router.resources import header, method, off

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from shoal.batching.v1.batching_pb2 import ServedModel
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Service

_MODELS: Final = "/shoal.v1.Models/"
_TIMEOUT: Final = "10s"


class Described(NamedTuple):
    """What workers say of a model."""

    task: str
    versions: tuple[int, ...]
    labels: int

    @classmethod
    def of(cls, told: ServedModel) -> Self:
        """From a worker's answer."""
        return cls(told.task, tuple(told.versions), told.labels)


PIPELINE: Final = Described("pipeline", (), 0)
"""What stands in the list for one: its steps are models, which are there, too."""
EMPTY: Final[Mapping[str, Described]] = {}


def model_list(
    service: Service, models: Sequence[str], unserved: AbstractSet[str], described: Mapping[str, Described]
) -> Json:
    """GET /v1/models: those that may be called, and where; for callers with a key."""
    told = [
        {
            "name": model,
            **({} if model in service.pipelines else {"pool": service.pool_of(model)}),
            "state": "unserved" if model in unserved else "served",
            **(described[model]._asdict() if model in described else {}),
        }
        for model in models
    ]
    return _answer(MODELS_PATH.rstrip("/"), {"models": told})


def keyless_routes(keyless: Json) -> list[Json]:
    """What anybody may ask: whether the service is there, and what it takes. ``keyless``: fields of such routes."""
    ready = {"match": {"path": V2_READY, "headers": [method("GET")]}, "route": {"cluster": HEALTH, "timeout": "5s"}}
    answers = [_answer("/v2/health/live", {"live": True}), _answer("/openapi.json", document())]
    return [
        {**route, **keyless, "typed_per_filter_config": {BODY_LIMIT: off(), **keyless["typed_per_filter_config"]}}
        for route in (*answers, ready)
    ]


def server_metadata(version: str) -> Json:
    """GET /v2."""
    return _answer("/v2", {"name": "shoal", "version": version, "extensions": []})


def model_routes(service: Service, models: Sequence[str], unserved: AbstractSet[str]) -> list[Json]:
    """Questions about one model go to a worker of its pool: it alone has the labels."""
    return [
        *(_ask(model, _answers(service, model), gone=model in unserved) for model in models),
        *model_missing(_MODELS),
    ]


def _answers(service: Service, model: str) -> str:
    """The cluster that knows of it."""
    return pipeline_cluster(model) if model in service.pipelines else pool_cluster(service.pool_of(model) or "")


def _ask(model: str, cluster: str, *, gone: bool) -> Json:
    match = {"prefix": _MODELS, "headers": [{"name": MODEL_HEADER, "string_match": {"exact": model}}]}
    if gone:
        return refusal(match, Code.UNAVAILABLE, f"no worker serves model '{REQUESTED_MODEL}' now")
    return {"match": match, "route": {"cluster": cluster, "timeout": _TIMEOUT}}


def _answer(path: str, told: object) -> Json:
    return {
        "match": {"path": path, "headers": [method("GET")]},
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(told)}},
        "response_headers_to_add": [header("content-type", "application/json")],
        "typed_per_filter_config": {BODY_LIMIT: off()},
    }
