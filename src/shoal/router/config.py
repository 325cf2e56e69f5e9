"""Envoy's configuration, made from the service file, the topology, the keys and the models' names. Pure: no I/O.

Each file holds what changes together, because Envoy reloads a file as a whole:

=================  ==============================  =============================
file               holds                           changes with
=================  ==============================  =============================
bootstrap.json     admin socket, where to look     never
cds.json           batchers' and workers' hosts    the topology
lds.json           listeners and their filters     the service file's ``router``
sds.json           where the certificate is        the service file's ``router.tls``
ecds.json          how tokens are checked          an issuer's keys
rds-public.json    models, keys, rate limits       a key, a model
rds-balancer.json  models to pools, keys' digests  a key, a model
=================  ==============================  =============================
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from shoal.router import certificate
from shoal.router.clusters import clusters
from shoal.router.health import health_socket
from shoal.router.key_answers import NO_ISSUERS, version
from shoal.router.listeners import (
    balancer_listener,
    health_listener,
    metrics_listener,
    public_listener,
    uploads_listener,
)
from shoal.router.model_list import EMPTY
from shoal.router.resources import config_file, extension, pipe
from shoal.router.routes import balancer_routes, public_routes
from shoal.router.tls import secret
from shoal.router.tokens import token_checks, token_clusters
from shoal.router.tracing import NO_EXPORT, collector, tracing
from shoal.runtime.envoy_admin import admin_socket
from shoal.runtime.envoy_http2 import Json, runtime
from shoal.service.identity import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from shoal.router.key_sources import KeySource
    from shoal.router.model_list import Described
    from shoal.router.tracing import Export
    from shoal.service.api_keys import KeyRing
    from shoal.service.spec import Router, Service
    from shoal.service.tokens import TokenIssuer
    from shoal.service.topology import Topology

BOOTSTRAP = "bootstrap.json"
CLUSTERS = "cds.json"
LISTENERS = "lds.json"
SECRETS = "sds.json"
JWT_CHECKS = "ecds.json"
PUBLIC_ROUTES = "rds-public.json"
BALANCER_ROUTES = "rds-balancer.json"

_REDACTED = "[redacted]"
_CLUSTER_NAME: Json = {
    "tag_name": "envoy.cluster_name",
    "regex": (
        r"^cluster\.(((?:pool|pipeline|batcher|streams|own|own-streams)/.+?|[^./]+)\.)"
        r"(?:circuit_breakers\.[^.]+\.|(?:health_check|http1|http2|outlier_detection)\."
        r"|(?:canary|external|internal)\.(?=upstream_rq_)|default\.(?=total_match_count$))?[^.]+$"
    ),
}
"""A cluster's name in what it counts, whole: Envoy's own rule ends it at the first dot, which a pool or model may have.

A name itself must not end like a group of statistics, such as ``.http2``.
"""


def render(
    service: Service,
    topology: Topology,
    keys: KeyRing,
    models: Iterable[str],
    *,
    folder: Path,
    unserved: AbstractSet[str] = frozenset(),
    described: Mapping[str, Described] = EMPTY,
    sources: Mapping[str, KeySource] = MappingProxyType({}),
    export: Export = NO_EXPORT,
) -> dict[str, str]:
    """The configuration's files: name to text.

    Args:
        service: The service file.
        topology: Where each part listens.
        keys: Who may call. Their secrets are in ``rds-public.json``.
        models: The names in the model store; those that no pool serves are left out.
        folder: Where the files will lie; an absolute path.
        unserved: Those of the models that no worker serves, so that calls for them are refused.
        described: What workers say of models.
        sources: What the tokens of each issuer are checked with.
        export: How spans get to their collector. Its headers are in ``lds.json``.
    """
    served = sorted({*(model for model in models if service.pool_of(model) is not None), *service.pipelines})
    public = public_listener(
        topology.public,
        service.router,
        tracing(service.observe.tracing, export),
        routes_file=str(folder / PUBLIC_ROUTES),
        secrets_file=str(folder / SECRETS),
        checks_file=str(folder / JWT_CHECKS),
    )
    balancer = balancer_listener(topology.balancer, service.router, str(folder / BALANCER_ROUTES))
    health = health_listener(health_socket(admin_socket(folder)))
    metrics = [metrics_listener(topology.metrics)] if topology.metrics else []
    uploads = [uploads_listener(topology.uploads, service.object_store)] if topology.uploads and topology.store else []
    secrets = [secret(certificate.CertificateFiles.of(service.router.tls))] if service.router.tls else []
    return {
        BOOTSTRAP: _text(_bootstrap(service, folder)),
        CLUSTERS: _resources(
            *clusters(service, topology, admin_socket(folder)),
            *token_clusters(service.router, sources),
            *collector(service.observe.tracing, export),
        ),
        LISTENERS: _resources(public, balancer, health, *metrics, *uploads),
        SECRETS: _resources(*secrets),
        JWT_CHECKS: _resources(*([token_checks(service.router, sources)] if service.router.tokens else [])),
        PUBLIC_ROUTES: _resources(public_routes(service, topology, keys, served, unserved, described)),
        BALANCER_ROUTES: _resources(balancer_routes(service, topology, served, keys)),
    }


def connections(router: Router) -> int:
    """How many Envoy keeps open: beside those that have said something, four fifths as many that are silent yet."""
    return router.max_connections * 9 // 5 + 1


def redact(text: str, keys: KeyRing, tokens: Mapping[str, TokenIssuer] = NO_ISSUERS, export: Export = NO_EXPORT) -> str:
    """``text`` without the keys' secrets, what could be held against a guess, and what opens the collector."""
    for key in keys:
        text = text.replace(json.dumps(key.key), json.dumps(_REDACTED)).replace(digest(key.key), _REDACTED)
    for _, value in export.headers:
        text = text.replace(json.dumps(value), json.dumps(_REDACTED))
    for told in (version(keys, tokens), keys.proof):
        text = text.replace(told, _REDACTED) if told else text
    return text


def _bootstrap(service: Service, folder: Path) -> Json:
    return {
        "node": {"id": "router", "cluster": "shoal"},
        "admin": {"address": pipe(admin_socket(folder), mode=0o600), "ignore_global_conn_limit": True},
        "dynamic_resources": {
            "lds_config": config_file(str(folder / LISTENERS)),
            "cds_config": config_file(str(folder / CLUSTERS)),
        },
        "layered_runtime": runtime(),
        "stats_config": {"stats_tags": [_CLUSTER_NAME], "allow_default_tag_overrides": True},
        "overload_manager": {
            "resource_monitors": [
                extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=connections(service.router),
                )
            ]
        },
    }


def _resources(*resources: Json) -> str:
    return _text({"resources": list(resources)})


def _text(document: Json) -> str:
    return json.dumps(document, indent=1) + "\n"
