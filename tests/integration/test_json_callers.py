"""Callers without a stub: JSON over HTTP/1.1 and HTTP/2, gRPC-Web, and pages of other origins, at a real router."""

from __future__ import annotations

import contextlib
import http.client as http_client
import json
import shutil
import socket
import struct
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema
import openapi_spec_validator
import pytest
from PIL import Image

from shoal import __version__
from shoal.client import Client
from shoal.service import api_keys
from shoal.v1 import inference_pb2 as pb
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import COLOURS, add_tiny_classifier

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

    def post_raw(self, path: str, body: bytes, kind: str = "application/json") -> Answer:
        """The path as it is, whatever a library thinks of it."""
        with contextlib.closing(http_client.HTTPConnection(self.target, timeout=60)) as connection:
            connection.putrequest("POST", "/", skip_host=True)
            connection._buffer[0] = f"POST {path} HTTP/1.1".encode("latin-1")  # type: ignore[attr-defined]
            told = {"host": "x", "content-type": kind, "x-api-key": self.key, "content-length": str(len(body))}
            for name, value in told.items():
                connection.putheader(name, value)
            with contextlib.suppress(ConnectionError):  # it may be refused before all of it is sent
                connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())

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
    listed = {"name": MODEL, "pool": "default", "state": "served", "task": "classification", "versions": [1]}
    assert http.send("/v1/models", method="GET").told == {"models": [listed | {"labels": 4}]}
    answer = http.send("/v1/models", method="GET", x_api_key="")
    assert (answer.status, answer.told["code"]) == (401, 16)


def test_a_model_is_described_by_its_worker(http: Caller) -> None:
    told = http.send(f"/v1/models/{MODEL}", method="GET").told
    assert told == {
        "name": MODEL, "task": "classification", "versions": [1], "labels": [*COLOURS], "width": 32, "height": 32,
        "max_batch_size": 4,
    }  # fmt: skip


def test_the_open_inference_protocols_paths(http: Caller) -> None:
    assert http.send("/v2", method="GET").told == {"name": "shoal", "version": __version__, "extensions": []}
    told = http.send(f"/v2/models/{MODEL}", method="GET").told
    assert (told["name"], told["versions"]) == (MODEL, ["1"])
    assert told["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert [each["datatype"] for each in told["outputs"]] == ["FP32"]
    assert http.send(f"/v2/models/{MODEL}/ready", method="GET").told == {"name": MODEL, "ready": True}


@pytest.mark.parametrize(("path", "told"), [("/v2/health/live", {"live": True}), ("/v2/health/ready", {"ready": True})])
def test_whether_it_is_there_anybody_may_ask(http: Caller, path: str, told: object) -> None:
    assert http.send(path, method="GET", x_api_key="").told == told


def test_the_description_is_one_and_names_what_is_answered(http: Caller) -> None:
    told = http.send("/openapi.json", method="GET", x_api_key="").told
    openapi_spec_validator.validate(told)
    answer = http.classify().told
    schema = {**told["components"]["schemas"]["ClassifyReply"], "components": told["components"]}
    jsonschema.validate(answer, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer | {"more": 1}, schema)


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/models/", "/v1/models/x/y", "/v3", "/v1/pictures", "/favicon.ico", "/shoal.v1.Uploads/Create"],
)
def test_a_get_of_anything_else_is_not_found(http: Caller, path: str) -> None:
    answer = http.send(path, method="GET")
    assert (answer.status, answer.told["code"]) == (404, 5)


@pytest.mark.parametrize("path", ["/v1/models/nope", "/v2/models/nope", "/v2/models/nope/ready"])
def test_a_model_that_there_is_not_is_not_found(http: Caller, path: str) -> None:
    answer = http.send(path, method="GET")
    assert (answer.status, answer.told["code"]) == (404, 5)
    assert "no model 'nope'" in answer.told["message"]


def test_who_asks_too_often_is_told_when_to_come_again(web: Stack, http: Caller) -> None:
    """By a worker, whose trailer becomes a header."""
    key = api_keys.create(web.home.keys, "dora", requests_per_second=2).key
    caller = http._replace(key=key)
    while caller.send("/v1/uploads", {"count": 60}).status != 200:
        pass  # the router hasn't seen the key yet
    answers = [caller.send("/v1/uploads", {}) for _ in range(4)]
    waits = [int(each.headers["retry-after"]) for each in answers if each.status == 429]
    assert max(waits) > 20  # the router's own say 1


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


HOSTILE = {
    "deep": (b"[" * 30_000 + b"]" * 30_000, "application/json", 400),
    "deep object": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "application/json", 400),
    "10 MB": (b'{"image_uuid": "' + b"x" * 10_000_000 + b'"}', "application/json", 413),
    "10 MB of lists": (b'{"a": [' + b"[]," * 3_000_000 + b"[]]}", "application/json", 413),
    "many names": (json.dumps({f"f{n}": n for n in range(3000)}).encode(), "application/json", 400),
    "no UTF-8": (b'{"image_uuid": "\xff\xfe"}', "application/json", 400),
    "null": (b"null", "application/json", 400),
    "nothing": (b"", "application/json", 400),
    "number": (b'{"top_k": 1e400}', "application/json", 400),
    "another type": (b"<x/>", "text/xml", 415),
}


@pytest.mark.parametrize("case", HOSTILE.values(), ids=list(HOSTILE))
def test_json_bombs_are_refused_and_the_next_call_is_answered(http: Caller, case: Any) -> None:
    body, kind, status = case
    answer = http.post_raw(f"/v1/models/{MODEL}:classify", body, kind)
    assert answer.status == status, answer
    assert len(answer.told["message"]) < 2000
    assert http.classify().status == 200


def test_10_mb_of_headers_end_the_connection_and_the_next_call_is_answered(http: Caller) -> None:
    host, port = http.target.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as caller:
        with contextlib.suppress(ConnectionError):
            caller.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"x-a: " + b"y" * 10_000_000)
        with contextlib.suppress(ConnectionError):
            assert caller.recv(20).startswith(b"HTTP/1.1 431")
    assert http.classify().status == 200


@pytest.mark.parametrize(
    "path",
    [
        f"//v1/models/{MODEL}:classify", f"/v1//models/{MODEL}:classify", f"/v1/models/{MODEL}:classify/",
        f"/v1/models/..;/{MODEL}:classify", f"/v1/%6dodels/{MODEL}:classify", f"/v1/uploads/../models/{MODEL}:classify",
        f"/v1/models/{MODEL}%3Aclassify", f"/%2e%2e/v1/models/{MODEL}:classify", "/stats", "/admin", "/-/drain",
        "/v1/models/../../-/drain", f"/v1/models/{MODEL}:classify;x=1", f"/v1/models/{MODEL}:classifyStream",
    ],
)  # fmt: skip
def test_paths_that_only_look_like_one_lead_nowhere(http: Caller, path: str) -> None:
    answer = http.post_raw(path, json.dumps({"image_uuid": http.uuid}).encode())
    assert answer.status in {400, 404, 415}, answer
    assert answer.told["code"] in {3, 5, 12}


@pytest.mark.parametrize(
    "name", ['"><script>alert(1)</script>', "'; drop--", "a%00b", "a%0d%0ax-evil:1", "%252e%252e", "é"]
)
def test_a_models_name_is_quoted_as_json_and_never_read_as_a_page(http: Caller, name: str) -> None:
    quoted = urllib.parse.quote(name, safe="%<>\"';-()")
    answer = http.post_raw(f"/v1/models/{quoted.replace('/', '%2f')}:classify", b'{"image_uuid": "x"}')
    assert answer.status in {400, 404}, answer
    assert answer.headers["content-type"] == "application/json"
    assert "x-evil" not in answer.headers
    assert answer.told["message"]


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
