"""Callers without a stub: JSON over HTTP/1.1 and HTTP/2, gRPC-Web, and pages of other origins, at a real router."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from PIL import Image

from shoal.client import Client
from shoal.service import api_keys
from shoal.v1 import inference_pb2 as pb
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = "https://example.org"
MODEL = "tiny"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)


class Caller(NamedTuple):
    target: str
    key: str
    uuid: str

    def send(self, path: str, body: object = None, method: str = "POST", **headers: str) -> Answer:
        """``body`` as JSON unless it is bytes; a header's underscore is a dash. One that is empty isn't sent."""
        told = {"content-type": "application/json", "x-api-key": self.key}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.target}{path}", data, method=method)
        for name, value in told.items():
            if value:
                request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def classify(self, model: str = MODEL, **fields: object) -> Answer:
        return self.send(f"/v1/models/{model}:classify", {"image_uuid": self.uuid, **fields})


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    service = f"router: {{cors_origins: [{PAGE}]}}"
    with running_stack(
        tmp_path_factory.mktemp("web"), models=lambda store: add_tiny_classifier(store, MODEL), service=service
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def http(web: Stack) -> Caller:
    with Client(web.target, api_key=web.api_key) as client:
        uuid = client.upload(encode(Image.new("RGB", (64, 64), (250, 0, 0))))
    return Caller(web.target, web.api_key, uuid)


def test_json_gets_what_grpc_gets(web: Stack, http: Caller) -> None:
    with Client(web.target, api_key=web.api_key) as client:
        expected = client.classify(http.uuid, MODEL)
    told = http.classify().told
    assert (told["image_uuid"], told["model_name"], told["model_version"]) == (http.uuid, MODEL, 1)
    assert [(each["index"], each["label"]) for each in told["classes"]] == [
        (each.index, each.label) for each in expected.classes
    ]
    assert told["classes"][0]["probability"] == pytest.approx(expected.classes[0].probability, rel=1e-6)
    assert told["timing"]["batch_size"] == 1


def test_grpcs_own_path_takes_json_too(http: Caller) -> None:
    message = {"image_uuid": http.uuid, "model_name": MODEL, "top_k": 1}
    answer = http.send("/shoal.v1.Inference/Classify", message, x_model_name=MODEL)
    assert len(answer.told["classes"]) == 1


def test_the_path_names_the_model_whatever_metadata_says(http: Caller) -> None:
    answer = http.send(f"/v1/models/{MODEL}:classify", {"image_uuid": http.uuid}, x_model_name="other")
    assert answer.told["model_name"] == MODEL


def test_a_picture_comes_by_http_alone(http: Caller) -> None:
    (upload,) = http.send("/v1/uploads", {}).told["uploads"]
    picture = urllib.request.Request(upload["put_url"], encode(Image.new("RGB", (8, 8))), method="PUT")
    urllib.request.urlopen(picture, timeout=60).close()
    assert http.send(f"/v1/models/{MODEL}:classify", {"image_uuid": upload["image_uuid"]}).status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl(http: Caller, version: str) -> None:
    url = f"http://{http.target}/v1/models/{MODEL}:classify"
    sent = ["-H", f"x-api-key: {http.key}", "--json", json.dumps({"image_uuid": http.uuid})]
    done = subprocess.run(["curl", "-s", version, url, *sent], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["model_name"] == MODEL


def test_the_models_are_listed_for_those_with_a_key(http: Caller) -> None:
    assert http.send("/v1/models", method="GET").told == {
        "models": [{"name": MODEL, "pool": "default", "state": "served"}]
    }
    assert http.send("/v1/models", method="GET", x_api_key="").status == 401


REFUSALS = {
    "bad key": (lambda http: http._replace(key="x" * 30).classify(), 401, 16, "'shoal keys create' makes one"),
    "unknown model": (lambda http: http.classify("nope"), 404, 5, "no model 'nope' is served here"),
    "bad uuid": (lambda http: http.classify(image_uuid="7"), 400, 3, "image_uuid '7' is not a UUID"),
    "misspelt uuid": (
        lambda http: http.send(f"/v1/models/{MODEL}:classify", {"image_uid": http.uuid}), 400, 3,
        'ImageRequest has no field "image_uid"; it has api_key, image_uuid,',
    ),
    "misspelt count": (lambda http: http.send("/v1/uploads", {"cuont": 2}), 400, 3, 'has no field "cuont"'),
    "wrong type": (lambda http: http.classify(top_k="many"), 400, 3, "top_k"),
    "not whole": (lambda http: http.classify(top_k=1.5), 400, 3, "top_k"),
    "no object": (lambda http: http.send(f"/v1/models/{MODEL}:classify", b"[1]"), 400, 3, ""),
    "two models": (lambda http: http.classify(model_name="x"), 400, 3, 'model_name "x" differs'),
    "no picture": (
        lambda http: http.classify(image_uuid="6ba7b810-9dad-41d1-80b4-00c04fd430c8"), 404, 5, "6ba7b810",
    ),
    "other task": (
        lambda http: http.send(f"/v1/models/{MODEL}:detect", {"image_uuid": http.uuid}), 400, 3, "call Classify",
    ),
    "no JSON": (lambda http: http.send(f"/v1/models/{MODEL}:classify", b"{nonsense"), 400, 3, "nonsense"),
    "query": (
        lambda http: http.send(f"/v1/models/{MODEL}:classify?top=1", {"image_uuid": http.uuid}), 400, 3, '"top"',
    ),
    "too large": (lambda http: http.classify(api_key="x" * 100_000), 413, 8, "larger than 65536 bytes"),
    "deadline": (
        lambda http: http.send(f"/v1/models/{MODEL}:classify", {"image_uuid": http.uuid}, grpc_timeout="1n"),
        504, 4, "deadline",
    ),
    "hostile name": (lambda http: http.classify('"%3Cscript%3E'), 404, 5, "no model '\"%3Cscript%3E'"),
    "dots": (lambda http: http.classify("..%2f" + MODEL), 404, 5, "no model '..%2f"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_refusals_are_json_with_the_status_of_http_and_of_grpc(http: Caller, case: Any) -> None:
    call, status, code, text = case
    answer = call(http)
    assert (answer.status, answer.told["code"]) == (status, code), answer
    assert text in answer.told["message"]


def test_a_key_of_other_models_is_forbidden(web: Stack, http: Caller) -> None:
    key = api_keys.create(web.home.keys, "carol", models=("else*",)).key
    other = http._replace(key=key)
    while (answer := other.classify()).status == 401:
        pass  # the router hasn't seen it yet
    assert (answer.status, answer.told["code"]) == (403, 7)


@pytest.mark.parametrize(("method", "kind"), [("GET", ""), ("POST", "text/html"), ("PUT", "application/json")])
def test_what_is_none_of_these_is_told_what_is_taken(http: Caller, method: str, kind: str) -> None:
    answer = http.send(f"/v1/models/{MODEL}:classify", b"x", method=method, content_type=kind or "text/plain")
    assert answer.status in {404, 405, 415}
    assert b"/v1/models/MODEL:classify" in answer.body


def test_grpc_web(http: Caller) -> None:
    message = pb.ImageRequest(api_key=http.key, image_uuid=http.uuid, model_name=MODEL).SerializeToString()
    frame = b"\0" + struct.pack(">I", len(message)) + message
    web = {"content_type": "application/grpc-web+proto", "x_model_name": MODEL, "x_grpc_web": "1", "origin": PAGE}
    answer = http.send("/shoal.v1.Inference/Classify", frame, **web)
    (length,) = struct.unpack(">I", answer.body[1:5])
    reply = pb.ClassifyReply.FromString(answer.body[5 : 5 + length])
    assert reply.image_uuid == http.uuid
    assert b"grpc-status:0" in answer.body[5 + length :]
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_page_of_another_origin_may_ask(http: Caller) -> None:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "x-api-key"}
    path = f"/v1/models/{MODEL}:classify"
    answer = http.send(path, method="OPTIONS", x_api_key="", origin=PAGE, **asked)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "x-api-key" in answer.headers["access-control-allow-headers"]
    assert http.send(path, {}, x_api_key="bad", origin=PAGE).headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://example.org.evil.net", "http://example.org", "null"])
def test_other_pages_may_not(http: Caller, origin: str) -> None:
    asked = {"access_control_request_method": "POST"}
    answer = http.send("/v1/models/x:classify", method="OPTIONS", x_api_key="", origin=origin, **asked)
    assert answer.status == 401
    assert "access-control-allow-origin" not in answer.headers
