from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shoal.batching import wire
from shoal.errors import ConfigurationError
from shoal.router import config
from shoal.router.key_answers import version
from shoal.router.key_sources import KeySource
from shoal.router.tracing import Export
from shoal.runtime.endpoint import Endpoint
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.service.spec import ObjectStore, Pool, Router, Service, Tls, parse
from shoal.service.topology import Topology

FOLDER = Path("/etc/envoy")
SECRET = "a-secret-of-some-length"
ALICE = Key(id="alice-1", key=SECRET + "-a", owner="alice")
BOB = Key(id="bob-1", key=SECRET + "-b", owner="bob", models=("resnet*",))
MODELS = ("resnet-50", "yolo")


TOKENS = "router: {tokens: {company: {issuer: i, audiences: [a], jwks_file: f}}}"


def topology(**changes: Any) -> Topology:
    fields: dict[str, Any] = {
        "public": ("127.0.0.1", 1),
        "balancer": ("127.0.0.1", 2),
        "batchers": {"shared": [("127.0.0.1", 4)]},
        "pools": {"default": [("127.0.0.1", 5)]},
    }
    return Topology.model_validate(fields | changes)


def render(
    *keys: Key, service: Service | None = None, where: Topology | None = None, models: tuple[str, ...] = MODELS
) -> dict[str, Any]:
    files = config.render(service or Service(), where or topology(), KeyRing(keys), models, folder=FOLDER)
    return {name: json.loads(text) for name, text in files.items()}


def routes(files: dict[str, Any], name: str = config.PUBLIC_ROUTES) -> list[dict[str, Any]]:
    return list(host(files, name)["routes"])


def host(files: dict[str, Any], name: str = config.PUBLIC_ROUTES) -> dict[str, Any]:
    found: dict[str, Any] = files[name]["resources"][0]["virtual_hosts"][0]
    return found


def by_model(files: dict[str, Any], name: str = config.PUBLIC_ROUTES) -> dict[str, dict[str, Any]]:
    """The routes of calls and of streams, by the model that they name."""
    found = {}
    for route in routes(files, name):
        if route["match"].get("prefix", "").startswith(("/shoal.v1.Pictures/", "/shoal.v1.Models/")):
            continue
        for matcher in route["match"].get("headers", []):
            if matcher["name"] == "x-model-name" and "string_match" in matcher:
                found[matcher["string_match"]["exact"]] = route
    return found


def stream_routes(files: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The routes of streams of calls, by model."""
    return {
        route["match"]["headers"][0]["string_match"]["exact"]: route
        for route in routes(files)
        if {"name": ":path", "string_match": {"suffix": "Stream"}} in route["match"].get("headers", [])
    }


def cluster(files: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in files[config.CLUSTERS]["resources"] if c["name"] == name)
    return found


def endpoints(found: dict[str, Any]) -> list[int]:
    """The ports of a cluster's hosts."""
    hosts = found["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return [host["endpoint"]["address"]["socket_address"]["port_value"] for host in hosts]


def public_filters(files: dict[str, Any]) -> list[dict[str, Any]]:
    """Of calls, in their order."""
    (chain,) = files[config.LISTENERS]["resources"][0]["filter_chains"]
    return list(chain["filters"][-1]["typed_config"]["http_filters"])


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_every_model_is_routed_on_both_listeners() -> None:
    files = render(ALICE)
    assert {model: r["route"]["cluster"] for model, r in by_model(files).items()} == dict.fromkeys(
        MODELS, "batcher/shared"
    )
    balanced = by_model(files, config.BALANCER_ROUTES)
    assert {model: r["route"]["cluster"] for model, r in balanced.items()} == dict.fromkeys(MODELS, "pool/default")


def test_every_route_leads_to_a_cluster_that_exists() -> None:
    files = render(ALICE)
    known = {c["name"] for c in files[config.CLUSTERS]["resources"]}
    for name in (config.PUBLIC_ROUTES, config.BALANCER_ROUTES):
        assert {r["route"]["cluster"] for r in routes(files, name) if "route" in r} <= known


def test_a_model_with_its_own_batchers_is_queued_there() -> None:
    where = topology(batchers={"shared": [("127.0.0.1", 4)], "yolo": [("127.0.0.1", 6), ("127.0.0.1", 7)]})
    files = render(ALICE, where=where)
    assert by_model(files)["yolo"]["route"]["cluster"] == "own/yolo"
    names = cluster(files, "own/yolo")["cluster_type"]["typed_config"]["clusters"]
    assert names == ["batcher/yolo", "batcher/shared"]
    assert by_model(files)["resnet-50"]["route"]["cluster"] == "batcher/shared"
    assert len(cluster(files, "batcher/yolo")["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2


def test_streams_of_calls_have_clusters_of_their_own_with_the_same_hosts() -> None:
    where = topology(batchers={"shared": [("127.0.0.1", 4)], "yolo": [("127.0.0.1", 6)]})
    files = render(ALICE, where=where)
    streams = stream_routes(files)
    assert {model: r["route"]["cluster"] for model, r in streams.items()} == {
        "resnet-50": "streams/shared",
        "yolo": "own-streams/yolo",
    }
    names = cluster(files, "own-streams/yolo")["cluster_type"]["typed_config"]["clusters"]
    assert names == ["streams/yolo", "streams/shared"]
    for group in ("shared", "yolo"):
        found, calls = cluster(files, f"streams/{group}"), cluster(files, f"batcher/{group}")
        assert endpoints(found) == endpoints(calls)
        assert found["outlier_detection"] == calls["outlier_detection"]
        assert found["health_checks"][0]["grpc_health_check"] == calls["health_checks"][0]["grpc_health_check"]


def test_unread_streams_can_not_use_up_their_connection() -> None:
    options = http2(cluster(render(ALICE), "streams/shared"))
    held = options["initial_stream_window_size"] * options["max_concurrent_streams"]
    assert 2 * held <= options["initial_connection_window_size"]


def test_a_stream_of_calls_is_bounded_as_a_stream_and_not_as_a_call() -> None:
    service = Service(router=Router(default_timeout_seconds=1.5, max_timeout_seconds=9))
    found = stream_routes(render(ALICE, BOB, service=service))["yolo"]
    assert found["route"]["max_stream_duration"] == {
        "max_stream_duration": "3600s",
        "grpc_timeout_header_max": "3600s",
    }
    assert found["route"]["idle_timeout"] == "600s"
    added = {each["header"]["key"]: each["header"]["value"] for each in found["request_headers_to_add"]}
    assert added["x-shoal-timeouts"] == "1500000,9000000"
    filters = found["typed_per_filter_config"]
    assert auth(found)["allowed_clients"] == [client(ALICE)]
    for name in ("envoy.filters.http.buffer", "envoy.filters.http.local_ratelimit"):
        assert filters[name]["disabled"]


def test_what_a_caller_says_of_time_outs_goes_no_further() -> None:
    files = render(ALICE)
    upload = next(route for route in routes(files) if route["match"].get("path") == "/shoal.v1.Uploads/Create")
    for route in (*by_model(files).values(), upload):
        assert "x-shoal-timeouts" in route["request_headers_to_remove"]


def test_refusals_wait_for_no_body() -> None:
    for route in routes(render(ALICE)):
        if refuses(route):
            assert route["typed_per_filter_config"]["envoy.filters.http.buffer"]["disabled"]


def test_a_model_goes_to_the_pool_that_names_it_and_one_without_a_pool_nowhere() -> None:
    service = Service(pools={"a": Pool(models=["resnet*"]), "b": Pool(models=["mask"])})
    where = topology(pools={"a": [("127.0.0.1", 5)], "b": [("127.0.0.1", 6)]})
    files = render(ALICE, service=service, where=where, models=("mask", "resnet-50", "yolo"))
    balanced = by_model(files, config.BALANCER_ROUTES)
    assert {m: r["route"]["cluster"] for m, r in balanced.items()} == {"mask": "pool/b", "resnet-50": "pool/a"}
    assert set(by_model(files)) == {"mask", "resnet-50"}
    assert endpoints(cluster(files, "workers")) == [5, 6]


def test_a_new_or_revoked_key_changes_the_routes_only() -> None:
    both = {config.PUBLIC_ROUTES, config.BALANCER_ROUTES}
    assert changed(render(ALICE), render(ALICE, BOB)) == both
    assert changed(render(ALICE), render()) == both
    limited = ALICE.model_copy(update={"requests_per_second": 5.0})
    assert changed(render(ALICE), render(limited)) == both


def test_a_new_model_changes_the_routes_only() -> None:
    assert changed(render(ALICE), render(ALICE, models=(*MODELS, "new"))) == {
        config.PUBLIC_ROUTES,
        config.BALANCER_ROUTES,
    }


def test_the_order_of_models_is_no_change() -> None:
    assert render(ALICE) == render(ALICE, models=MODELS[::-1])


def test_a_model_that_some_keys_may_not_call_names_those_that_may() -> None:
    files = by_model(render(ALICE, BOB))
    assert auth(files["resnet-50"]) is None
    assert auth(files["yolo"])["allowed_clients"] == [client(ALICE)]
    assert {c["client"] for c in auth(files["yolo"])["credentials"]} == {client(ALICE), client(BOB)}


def test_a_model_that_no_key_may_call_allows_nobody_rather_than_everybody() -> None:
    assert auth(by_model(render(BOB))["yolo"])["allowed_clients"] == ["-"]


def client(key: Key) -> str:
    return Identity.of(key).write()


def auth(route: dict[str, Any]) -> Any:
    return route["typed_per_filter_config"].get("envoy.filters.http.api_key_auth")


def test_only_health_and_the_description_need_no_key() -> None:
    open_paths = {
        route["match"].get("path")
        for route in routes(render(ALICE))
        if (auth({"typed_per_filter_config": {}, **route}) or {}).get("disabled")
    }
    health = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/v2/health/live", "/v2/health/ready"}
    assert open_paths == health | {"/openapi.json"}


def test_the_last_routes_refuse_what_no_other_takes() -> None:
    for name in (config.PUBLIC_ROUTES, config.BALANCER_ROUTES):
        last = routes(render(ALICE), name)[-1]
        assert last["match"] == {"prefix": "/"}
        assert last["response_headers_to_add"][0]["header"] == {"key": "grpc-status", "value": "12"}


def test_rate_limits_are_there_for_limited_keys_only() -> None:
    filters = "envoy.filters.http.local_ratelimit"
    assert filters not in host(render(ALICE))["typed_per_filter_config"]
    slow = ALICE.model_copy(update={"requests_per_second": 0.5})
    fast = BOB.model_copy(update={"requests_per_second": 100.0})
    limits = host(render(slow, fast))["typed_per_filter_config"][filters]["descriptors"]
    assert {d["entries"][0]["value"]: d["token_bucket"] for d in limits} == {
        client(slow): {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "2s"},
        client(fast): {"max_tokens": 100, "tokens_per_fill": 5, "fill_interval": "0.05s"},
    }


def test_time_outs_follow_the_service_file() -> None:
    service = Service(router=Router(default_timeout_seconds=1.5, max_timeout_seconds=9))
    route = by_model(render(ALICE, service=service))["yolo"]["route"]
    assert route["timeout"] == "0s"
    assert route["max_stream_duration"] == {"max_stream_duration": "1.5s", "grpc_timeout_header_max": "9s"}


def test_batching_streams_have_no_time_out_and_go_to_the_least_busy_of_all_workers() -> None:
    files = render(ALICE)
    assert by_model(files, config.BALANCER_ROUTES)["yolo"]["route"]["timeout"] == "0s"
    manager = files[config.LISTENERS]["resources"][1]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["stream_idle_timeout"] == "0s"
    policy = cluster(files, "pool/default")["load_balancing_policy"]["policies"][0]["typed_extension_config"]
    assert policy["typed_config"]["selection_method"] == "FULL_SCAN"


def test_names_are_resolved_and_addresses_are_not() -> None:
    where = topology(pools={"default": [("workers.example", 5)]}, batchers={"shared": [("::1", 4)]})
    files = render(ALICE, where=where)
    assert cluster(files, "pool/default")["type"] == "STRICT_DNS"
    assert cluster(files, "batcher/shared")["type"] == "STATIC"


def test_a_name_is_asked_for_again_however_long_its_answer_holds() -> None:
    files = render(ALICE, where=topology(batchers={"shared": [("batcher.example", 4)]}))
    found = cluster(files, "batcher/shared")
    assert (found["dns_refresh_rate"], found["respect_dns_ttl"]) == ("1s", False)


def test_redacting_leaves_no_secret() -> None:
    files = config.render(Service(), topology(), KeyRing([ALICE, BOB]), MODELS, folder=FOLDER)
    assert any(SECRET in text for text in files.values())
    redacted = [config.redact(text, KeyRing([ALICE, BOB])) for text in files.values()]
    assert not any(SECRET in text or Identity.of(ALICE).digest in text for text in redacted)
    assert not any(version(KeyRing([ALICE, BOB])) in text for text in redacted), "a guess could be held against it"


def test_a_tokens_proof_is_redacted_and_free_of_keys() -> None:
    keys, service = KeyRing([ALICE, BOB]), parse(TOKENS, "shoal.yaml")
    sources = {"company": KeySource(jwks='{"keys": []}')}
    files = config.render(service, topology(), keys, MODELS, folder=FOLDER, sources=sources)
    assert keys.proof in files[config.PUBLIC_ROUTES]
    told = "".join(config.redact(text, keys, service.router.tokens) for text in files.values())
    assert keys.proof not in told
    assert version(keys, service.router.tokens) not in told


def test_without_issuers_nothing_looks_at_tokens() -> None:
    files = render(ALICE)
    filters = [each["name"] for each in public_filters(files)]
    assert not {name for name in filters if "jwt" in name or "token" in name}
    assert files[config.JWT_CHECKS] == {"resources": []}


def test_an_issuer_without_its_keys_is_none() -> None:
    files = config.render(parse(TOKENS, "s"), topology(), KeyRing([ALICE]), MODELS, folder=FOLDER)
    (checks,) = json.loads(files[config.JWT_CHECKS])["resources"]
    assert checks["typed_config"]["providers"] == {}


def test_without_a_collector_nothing_traces() -> None:
    files = render(ALICE)
    (chain,) = files[config.LISTENERS]["resources"][0]["filter_chains"]
    manager = chain["filters"][-1]["typed_config"]
    assert "tracing" not in manager
    assert manager["generate_request_id"] is False
    assert "collector" not in {found["name"] for found in files[config.CLUSTERS]["resources"]}


def test_the_router_decides_which_calls_are_traced() -> None:
    text = "observe: {tracing: {otlp_endpoint: 'http://[::1]:4317', sample_ratio: 0.025}}"
    files = render(ALICE, service=parse(text, "s"))
    (chain,) = files[config.LISTENERS]["resources"][0]["filter_chains"]
    manager = chain["filters"][-1]["typed_config"]
    sampler = manager["tracing"]["provider"]["typed_config"]["sampler"]["typed_config"]
    ratio = sampler["wrapped_sampler"]["typed_config"]["sampling_percentage"]
    assert ratio == {"numerator": 25_000, "denominator": "MILLION"}
    assert manager["generate_request_id"] is True, "Envoy traces no call without"
    (where,) = cluster(files, "collector")["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert where["endpoint"]["address"]["socket_address"] == {"address": "::1", "port_value": 4317}


@pytest.mark.parametrize(
    ("variables", "headers"),
    [
        ({}, ()),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "A=b,, c = d%3D%2C"}, (("a", "b"), ("c", "d=,"))),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "c=d"}, (("c", "d"),)),
    ],
)
def test_a_collectors_headers_come_from_the_environment(
    variables: dict[str, str], headers: tuple[tuple[str, str], ...]
) -> None:
    settings = parse("observe: {tracing: {otlp_endpoint: 'http://a:1'}}", "s").observe.tracing
    assert Export.of(settings, variables) == Export(headers)
    assert Export.of(None, {"OTEL_EXPORTER_OTLP_HEADERS": "nonsense"}) == Export()


@pytest.mark.parametrize(
    "text", ["secret", "=secret", "a=secret%0D%0Ab: c", "a b=secret", "ä=secret", "a=secretä", "="]
)
def test_headers_that_can_be_none_are_refused_without_their_text(text: str) -> None:
    settings = parse("observe: {tracing: {otlp_endpoint: 'http://a:1'}}", "s").observe.tracing
    with pytest.raises(ConfigurationError, match=r"\$OTEL_EXPORTER_OTLP_HEADERS: expected name=value") as raised:
        Export.of(settings, {"OTEL_EXPORTER_OTLP_HEADERS": text})
    assert "secret" not in str(raised.value)


def test_a_percent_sign_is_refused_as_envoy_would() -> None:
    settings = parse("observe: {tracing: {otlp_endpoint: 'http://a:1'}}", "s").observe.tracing
    with pytest.raises(ConfigurationError, match="a: Envoy sends no header with a percent sign"):
        Export.of(settings, {"OTEL_EXPORTER_OTLP_HEADERS": "a=secret%25"})


def test_a_collector_is_trusted_by_the_authorities_named(tmp_path: Path) -> None:
    settings = parse("observe: {tracing: {otlp_endpoint: 'https://tempo.example:443'}}", "s").observe.tracing
    (tmp_path / "ca.pem").write_text("PEM")
    assert Export.of(settings, {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}).authorities == "PEM"
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: .*can't be read"):
        Export.of(settings, {"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": str(tmp_path / "no.pem")})


def test_what_opens_the_collector_is_redacted() -> None:
    export = Export((("authorization", 'Bearer "x"'),))
    shown = config.redact(json.dumps({"value": 'Bearer "x"'}), KeyRing(()), export=export)
    assert json.loads(shown) == {"value": "[redacted]"}


def test_secrets_are_in_one_file() -> None:
    files = config.render(Service(), topology(), KeyRing([ALICE]), MODELS, folder=FOLDER)
    assert [name for name, text in files.items() if SECRET in text] == [config.PUBLIC_ROUTES]


def test_endpoints_become_addresses() -> None:
    files = render(ALICE, where=topology(public=Endpoint("0.0.0.0", 8080)))
    assert files[config.LISTENERS]["resources"][0]["address"] == {
        "socket_address": {"address": "0.0.0.0", "port_value": 8080}
    }


def test_without_tls_and_metrics_there_is_nothing_of_either() -> None:
    files = render(ALICE)
    assert [listener["name"] for listener in files[config.LISTENERS]["resources"]] == ["public", "balancer", "health"]
    assert "transport_socket" not in files[config.LISTENERS]["resources"][0]["filter_chains"][0]
    assert files[config.SECRETS] == {"resources": []}
    assert "admin" not in {c["name"] for c in files[config.CLUSTERS]["resources"]}


def test_tls_is_on_the_public_listener_alone_and_names_files() -> None:
    tls = Tls(certificate_file="/tls/tls.crt", key_file="/tls/tls.key")
    files = render(ALICE, service=Service(router=Router(tls=tls)))
    public, balancer, _ = (each["filter_chains"][0] for each in files[config.LISTENERS]["resources"])
    assert "transport_socket" not in balancer
    context = public["transport_socket"]["typed_config"]["common_tls_context"]
    assert "h2" in context["alpn_protocols"]
    source = context["tls_certificate_sds_secret_configs"][0]
    secret = files[config.SECRETS]["resources"][0]
    assert source["sds_config"]["path_config_source"]["path"] == str(FOLDER / config.SECRETS)
    assert source["name"] == secret["name"]
    assert secret["tls_certificate"] == {
        "certificate_chain": {"filename": "/tls/tls.crt"},
        "private_key": {"filename": "/tls/tls.key"},
        "watched_directory": {"path": "/tls"},
    }


def test_a_certificate_and_a_key_of_two_folders_are_watched_each() -> None:
    tls = Tls(certificate_file="/certs/tls.crt", key_file="/private/tls.key")
    files = render(ALICE, service=Service(router=Router(tls=tls)))
    assert "watched_directory" not in files[config.SECRETS]["resources"][0]["tls_certificate"]


def test_the_metrics_listener_leads_to_two_paths_of_the_admin_socket() -> None:
    files = render(ALICE, where=topology(metrics=("0.0.0.0", 9100)))
    listener = files[config.LISTENERS]["resources"][3]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (virtual_host,) = manager["route_config"]["virtual_hosts"]
    *led, alive = virtual_host["routes"]
    assert [route["match"]["path"] for route in led] == ["/stats/prometheus", "/ready"]
    assert {route["route"]["cluster"] for route in led} == {"admin"}
    assert alive == {"match": {"path": "/alive"}, "direct_response": {"status": 200}}, "a drain is no fault"
    assert cluster(files, "admin")["load_assignment"]["endpoints"][0]["lb_endpoints"] == [
        {"endpoint": {"address": {"pipe": {"path": "/etc/envoy/admin.sock"}}}}
    ]


def test_only_the_public_listener_leaves_when_envoy_is_to_leave() -> None:
    files = render(ALICE, where=topology(metrics=("0.0.0.0", 9100)))
    assert [each.get("drain_type") for each in files[config.LISTENERS]["resources"]] == [
        None,
        "MODIFY_ONLY",
        "MODIFY_ONLY",
        "MODIFY_ONLY",
    ]


def test_only_exact_methods_go_on() -> None:
    files = render(ALICE)
    (unknown,) = (r for r in routes(files) if r["match"].get("prefix") == "/shoal.v1.Inference/" and refuses(r) == "12")
    path = re.compile(unknown["match"]["headers"][0]["string_match"]["safe_regex"]["regex"])
    assert unknown["match"]["headers"][0]["invert_match"]
    assert path.fullmatch("/shoal.v1.Inference/Classify")
    assert path.fullmatch("/shoal.v1.Inference/ClassifyStream")
    for other in ("Clasify", "Classify/", "Classify?x", "%43lassify", "/Classify", "Stream", "ClassifyStreamStream"):
        assert not path.fullmatch(f"/shoal.v1.Inference/{other}")
    order = routes(files)
    assert order.index(unknown) < min(order.index(route) for route in by_model(files).values())


def refuses(route: dict[str, Any]) -> Any:
    """The gRPC status of a refusal."""
    return next((each["header"]["value"] for each in route.get("response_headers_to_add", [])), None)


def test_what_is_no_grpc_is_told_so_before_it_is_asked_for_a_model() -> None:
    files = render(ALICE)
    statuses = [route.get("direct_response", {}).get("status") for route in routes(files)]
    assert max(statuses.index(415), statuses.index(405)) < routes(files).index(by_model(files)["yolo"])


def test_a_batcher_is_asked_for_its_health_and_pinged() -> None:
    found = cluster(render(ALICE), "batcher/shared")
    (check,) = found["health_checks"]
    assert check["grpc_health_check"]["authority"], "else it is the cluster's name, which is no authority"
    assert (check["interval"], check["no_traffic_interval"]) == ("0.5s", "0.5s")
    assert http2(found)["connection_keepalive"] == {"interval": "0.5s", "timeout": "1.5s"}
    assert "healthy_panic_threshold" not in found["common_lb_config"], "the last one is tried whatever it says"


@pytest.mark.parametrize("name", ["pool/default", "workers"])
def test_a_worker_is_pinged_whatever_it_is_asked(name: str) -> None:
    assert http2(cluster(render(ALICE), name))["connection_keepalive"] == {"interval": "1s", "timeout": "1s"}


def http2(found: dict[str, Any]) -> dict[str, Any]:
    """A cluster's HTTP/2 options."""
    (options,) = found["typed_extension_protocol_options"].values()
    return dict(options["explicit_http_config"]["http2_protocol_options"])


def test_what_is_everybodys_connection_is_not_ended_for_one_callers_frames() -> None:
    files = render(ALICE)
    for name in ("batcher/shared", "streams/shared", "pool/default", "workers"):
        options = http2(cluster(files, name))
        assert min(options["stream_reset_burst"], options["stream_reset_rate"]) >= 1_000_000
        assert min(options["max_outbound_frames"], options["max_outbound_control_frames"]) >= 1_000_000
    assert files[config.BOOTSTRAP]["layered_runtime"]["layers"]


def test_the_admin_address_is_a_socket_of_ours_alone() -> None:
    admin = render(ALICE)[config.BOOTSTRAP]["admin"]
    assert admin["address"] == {"pipe": {"path": "/etc/envoy/admin.sock", "mode": 0o600}}


def test_uploads_are_bounded_where_the_store_is_ours() -> None:
    assert "store" not in {c["name"] for c in render(ALICE)[config.CLUSTERS]["resources"]}
    service = Service(object_store=ObjectStore(max_image_bytes=1000))
    files = render(ALICE, service=service, where=topology(store=("127.0.0.1", 7), uploads=("127.0.0.1", 8)))
    assert endpoints(cluster(files, "store")) == [7]
    door = files[config.LISTENERS]["resources"][-1]
    assert door["address"]["socket_address"]["port_value"] == 8
    (virtual_host,) = door["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"]
    (taken,) = (route for route in virtual_host["routes"] if "route" in route)
    assert taken["match"]["headers"] == [{"name": "content-length", "range_match": {"start": 0, "end": 1001}}]


def test_a_model_that_no_worker_serves_is_refused_and_still_balanced() -> None:
    files = {
        name: json.loads(text)
        for name, text in config.render(
            Service(), topology(), KeyRing([ALICE, BOB]), MODELS, folder=FOLDER, unserved=frozenset({"yolo", "gone"})
        ).items()
    }
    refused = by_model(files)["yolo"]
    assert refuses(refused) == "14"
    assert auth(refused)["allowed_clients"] == [Identity.of(ALICE).write()], (
        "who may not call it learns no more than that"
    )
    assert by_model(files)["resnet-50"]["route"]["cluster"] == "batcher/shared"
    assert "yolo" in by_model(files, config.BALANCER_ROUTES)


def test_uploads_have_bounds_of_their_own() -> None:
    where = topology(store=("127.0.0.1", 8), uploads=("127.0.0.1", 9))
    (door,) = (each for each in render(ALICE, where=where)[config.LISTENERS]["resources"] if each["name"] == "uploads")
    limit, manager = (each["typed_config"] for each in door["filter_chains"][0]["filters"])
    assert door["ignore_global_conn_limit"]
    assert (limit["stat_prefix"], limit["max_connections"]) == ("uploads", 1000)
    assert manager["common_http_protocol_options"]["max_stream_duration"] == "600s"


PIPELINES = """\
pools: {default: {models: ['*']}}
models: {hot: {batchers: 1}}
pipelines: {street: {detect: {model: a}, then: [{model: hot}]}}
"""


def with_pipelines() -> dict[str, Any]:
    found = topology(
        pipelines={"street": [Endpoint("127.0.0.1", 7001)]},
        batchers={"shared": [Endpoint("127.0.0.1", 7101)], "hot": [Endpoint("127.0.0.1", 7102)]},
        pools={"default": [Endpoint("127.0.0.1", 7201)]},
    )
    return render(service=parse(PIPELINES, "s"), where=found, models=("a", "hot"))


def test_a_pipeline_is_called_as_a_model_is_and_its_streams_lead_to_its_own_processes() -> None:
    files = with_pipelines()
    assert by_model(files)["street"]["route"]["cluster"] == "batcher/shared"
    batching = [each for each in routes(files, config.BALANCER_ROUTES) if each["match"].get("path") == wire.COMPUTE]
    led = {each["match"]["headers"][0]["string_match"]["exact"]: each["route"]["cluster"] for each in batching}
    assert led == {"a": "pool/default", "hot": "pool/default", "street": "pipeline/street"}
    assert endpoints(cluster(files, "pipeline/street")) == [7001]
    assert 7001 not in endpoints(cluster(files, "workers")), "it takes neither uploads nor pictures"


def test_pipelines_call_models_at_the_inner_listener_where_callers_calls_would_go() -> None:
    found = [
        each
        for each in routes(with_pipelines(), config.BALANCER_ROUTES)
        if each["match"].get("prefix") == "/shoal.v1.Inference/" and "route" in each
    ]
    led = [(each["match"]["headers"][0]["string_match"]["exact"], each["route"]["cluster"]) for each in found]
    assert led == [
        ("a", "streams/shared"),
        ("a", "batcher/shared"),
        ("hot", "own-streams/hot"),
        ("hot", "own/hot"),
    ]
    assert not any("request_headers_to_add" in each for each in found), "the identity goes on as it came"


def test_without_pipelines_the_inner_listener_takes_no_calls() -> None:
    prefixes = {each["match"].get("prefix", "") for each in routes(render(), config.BALANCER_ROUTES)}
    assert prefixes == {"", "/", "/shoal.batching.v1.Batching/"}
