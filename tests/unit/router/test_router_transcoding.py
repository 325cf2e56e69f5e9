"""JSON's way into the router: the paths that lead to methods, as Envoy's transcoder reads them."""

from __future__ import annotations

import re

import pytest
from google.protobuf import descriptor_pb2

from shoal.router.json_methods import descriptors
from shoal.router.transcoding import json_routes
from shoal.v1 import inference_pb2

SET = descriptor_pb2.FileDescriptorSet.FromString(descriptors())
METHODS = {
    f"{service.name}/{method.name}": method
    for file in SET.file
    for service in file.service
    for method in service.method
}
OPTION = bytes.fromhex("82d3e49302")
"""How the option ``google.api.http`` begins in every descriptor that protoc writes: field 72295728, wire type 2."""


def test_each_unary_method_has_a_path_and_no_stream_has() -> None:
    services = inference_pb2.DESCRIPTOR.services_by_name
    unary = {
        f"{name}/{method.name}"
        for name, service in services.items()
        for method in service.methods
        if not method.client_streaming
    }
    assert set(METHODS) == unary


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("Inference/Classify", b"/v1/models/{model_name}:classify"),
        ("Inference/Detect", b"/v1/models/{model_name}:detect"),
        ("Inference/Segment", b"/v1/models/{model_name}:segment"),
        ("Uploads/Create", b"/v1/uploads"),
    ],
)
def test_a_path_leads_to_a_method_as_the_annotation_would(method: str, path: bytes) -> None:
    options = METHODS[method].options.SerializeToString()
    assert options.startswith(OPTION)
    assert bytes([4 << 3 | 2, len(path)]) + path + b"\x3a\x04json" in options  # post, then body: "json"
    own = f"/shoal.v1.{method}".encode()
    assert bytes([4 << 3 | 2, len(own)]) + own in options


@pytest.mark.parametrize("path", ["/v1/models/a.b-c_1:classify", "/v1/models/x:segment"])
def test_paths_that_are_taken(path: str) -> None:
    assert re.fullmatch(json_routes(1)[0]["match"]["safe_regex"]["regex"], path)


@pytest.mark.parametrize(
    "path",
    ["/v1/models/:classify", "/v1/models/a/b:classify", "/v1/models/x:explode", "/v1/models/x", "//v1/models/x:detect"],
)
def test_paths_that_are_not(path: str) -> None:
    assert not re.fullmatch(json_routes(1)[0]["match"]["safe_regex"]["regex"], path)
