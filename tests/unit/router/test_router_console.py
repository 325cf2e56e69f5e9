"""The console's routes: the page for anybody, its questions and uploads for those with a key, or none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shoal.console import page
from shoal.router import config
from shoal.router.console import socket_of
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.envoy_admin import admin_socket
from shoal.service.api_keys import Key, KeyRing
from shoal.service.spec import ObjectStore, Router, Service
from shoal.service.topology import Topology

FOLDER = Path("/etc/envoy")
HOST = Endpoint("127.0.0.1", 1)
ALICE = Key(id="alice-1", key="a-secret-of-some-length", owner="alice")
STORE = {"store": Endpoint("127.0.0.1", 7), "uploads": Endpoint("127.0.0.1", 8)}
KEY_CHECK = "envoy.filters.http.api_key_auth"


def render(console: bool | None, **more: Endpoint) -> tuple[list[dict[str, Any]], set[str]]:
    """The public routes, and the names of the clusters."""
    service = Service(router=Router(console=console), object_store=ObjectStore(url="s3://pictures/all"))
    topology = Topology(public=HOST, balancer=HOST, batchers={"shared": [HOST]}, pools={"default": [HOST]}, **more)
    files = config.render(service, topology, KeyRing([ALICE]), ["m"], folder=FOLDER)
    routes = json.loads(files[config.PUBLIC_ROUTES])["resources"][0]["virtual_hosts"][0]["routes"]
    return routes, {cluster["name"] for cluster in json.loads(files[config.CLUSTERS])["resources"]}


def by_path(routes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {path: each for each in routes if (path := each["match"].get("path") or each["match"].get("prefix"))}


@pytest.mark.parametrize("console", [None, False])
def test_without_a_console_nothing_of_it_is_there(console: bool | None) -> None:
    routes, clusters = render(console, **STORE)
    assert not {"/", "/v1/status", "/v1/requests/"} & {each["match"].get("path") for each in routes}
    assert not any("query_parameters" in each["match"] for each in routes)
    assert "console" not in clusters


def test_the_page_needs_no_key_and_comes_with_its_policy() -> None:
    routes, _ = render(console=True)
    for path, file in page.files().items():
        route = next(each for each in routes if each["match"].get("path") == path)
        assert route["direct_response"]["body"]["inline_string"] == file.text
        assert route["typed_per_filter_config"][KEY_CHECK]["disabled"]
        told = {each["header"]["key"]: each["header"]["value"] for each in route["response_headers_to_add"]}
        assert told["content-security-policy"].startswith("default-src 'none'")
        assert told["content-type"] == file.content_type


def test_questions_need_a_key_and_take_nothing_of_its_calls() -> None:
    routes, clusters = render(console=True)
    assert "console" in clusters
    for path in ("/v1/status", "/v1/requests/"):
        route = by_path(routes)[path]
        assert route["route"]["cluster"] == "console"
        assert KEY_CHECK not in route["typed_per_filter_config"]
        assert route["typed_per_filter_config"]["envoy.filters.http.local_ratelimit"]["disabled"]


def test_uploads_go_on_to_the_store_with_the_host_that_was_signed() -> None:
    routes, _ = render(console=True, **STORE)
    taken, too_large, endless = (each for each in routes if "query_parameters" in each["match"])
    assert taken["match"]["prefix"] == "/pictures/"
    assert taken["match"]["headers"][0]["string_match"]["exact"] == "PUT"
    assert taken["route"]["host_rewrite_literal"] == "127.0.0.1:8"
    assert taken["route"]["max_stream_duration"] == {"max_stream_duration": "600s"}
    assert [each["direct_response"]["status"] for each in (too_large, endless)] == [413, 411]
    assert all(KEY_CHECK not in each["typed_per_filter_config"] for each in (taken, too_large, endless))
    assert not any("query_parameters" in each["match"] for each in render(console=True)[0]), "a store of others"


def test_the_socket_fits_where_the_admin_socket_does(tmp_path: Path) -> None:
    admin = admin_socket(tmp_path / "router")
    assert socket_of(admin).parent == admin.parent
    assert len(str(socket_of(admin))) <= len(str(admin))
