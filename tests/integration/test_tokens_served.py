"""A picture and its answer by a token alone: upload, JSON, gRPC, and a stream of calls, through the whole service."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from PIL import Image

from shoal.batching.v1 import stream_pb2
from shoal.client import Client
from shoal.errors import PermissionDenied, Unauthenticated
from shoal.modelconfig.batching import BatchingSettings
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.v1 import inference_pb2 as pb
from support.pictures import encode
from support.stack import Stack, running_stack, shoal
from support.tiny_models import add_tiny_classifier
from support.token_issuer import AUDIENCE, ISSUER, Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "tiny"
HELD = "held"
"""A model that waits a minute for a batch of two."""
_WAITS = BatchingSettings(max_batch_size=2, preferred_batch_size=(2,), max_queue_delay_microseconds=60_000_000)
CLASSIFY = "/shoal.v1.Inference/Classify"


PARTNER = Issuer("https://partner.example")
"""Its tokens are of one owner, and may call all models."""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("tokens")
    (root / "jwks.json").write_text(issuer.key_set)
    api_keys.create(Home(root).keys, "alice")
    (root / "partner.json").write_text(PARTNER.key_set)
    known = f"audiences: [{AUDIENCE}], jwks_file: {root}"
    company = f"company: {{issuer: {ISSUER!r}, {known}/jwks.json, models_claim: models}}"
    partner = f"partner: {{issuer: {PARTNER.name!r}, {known}/partner.json, owner: guests}}"

    def models(store: Path) -> None:
        add_tiny_classifier(store, MODEL)
        add_tiny_classifier(store, HELD, batching=_WAITS)

    with running_stack(root, models=models, service=f"router: {{tokens: {{{company}, {partner}}}}}") as stack:
        yield stack


@pytest.fixture(scope="module")
def uuid(served: Stack, issuer: Issuer) -> str:
    told = post(served, "/v1/uploads", {}, issuer)
    (upload,) = told["uploads"]
    picture = encode(Image.new("RGB", (64, 64), (250, 0, 0)))
    urllib.request.urlopen(urllib.request.Request(upload["put_url"], picture, method="PUT"), timeout=60).close()
    return str(upload["image_uuid"])


def post(stack: Stack, path: str, body: object, issuer: Issuer) -> dict[str, list[dict[str, str]]]:
    headers = dict([issuer.bearer(models=[MODEL])]) | {"content-type": "application/json"}
    request = urllib.request.Request(f"http://{stack.target}{path}", json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, list[dict[str, str]]] = json.loads(answer.read())
        return found


def metadata(issuer: Issuer, **claims: object) -> list[tuple[str, str]]:
    return [issuer.bearer(**{"models": [MODEL], **claims}), ("x-model-name", MODEL)]


def test_json(served: Stack, issuer: Issuer, uuid: str) -> None:
    assert post(served, f"/v1/models/{MODEL}:classify", {"image_uuid": uuid}, issuer)["classes"][0]["label"]


def test_grpc_needs_no_key_in_the_message(served: Stack, issuer: Issuer, uuid: str) -> None:
    message = pb.ImageRequest(image_uuid=uuid, model_name=MODEL).SerializeToString()
    with grpc.insecure_channel(served.target) as channel:
        call = channel.unary_unary(CLASSIFY, response_deserializer=pb.ClassifyReply.FromString)
        assert call(message, metadata=metadata(issuer), timeout=60).classes
        with pytest.raises(grpc.RpcError) as raised:
            call(message, metadata=metadata(issuer, sub="bob"), timeout=60)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND, "another owner's picture"


def test_a_key_of_the_tokens_owner_shares_its_pictures(served: Stack, uuid: str) -> None:
    key = next(key for key in api_keys.load_keys(served.home.keys) if key.owner == "alice")
    with Client(served.target, api_key=key.key) as client:
        assert client.classify(uuid, MODEL).classes


def test_a_stream_of_calls_ends_with_its_token(served: Stack, issuer: Issuer, uuid: str) -> None:
    message = pb.ImageRequest(image_uuid=uuid, model_name=MODEL).SerializeToString()
    opened = stream_pb2.CallChunk(calls=[stream_pb2.CallItem(index=1, request=message)])
    ends = int(time.time()) - 55  # good for 5 s: clocks may differ by a minute

    over = threading.Event()

    def calls() -> Iterator[bytes]:
        yield opened.SerializeToString()
        over.wait(60)

    with grpc.insecure_channel(served.target) as channel:
        stream = channel.stream_stream(f"{CLASSIFY}Stream", response_deserializer=stream_pb2.CallResultChunk.FromString)
        answers = stream(calls(), metadata=metadata(issuer, exp=ends), timeout=60)
        assert next(answers).results[0].code == 0
        with pytest.raises(grpc.RpcError) as raised:
            next(answers)
        over.set()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "the token has ended" in raised.value.details()


class Source:
    """Gives tokens: the first ends at the service in 5 s, since clocks may differ by a minute."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self.given = 0
        self.asked = threading.Semaphore(0)

    def __call__(self) -> str:
        self.given += 1
        self.asked.release()
        soon = {"exp": int(time.time()) - 55} if self.given == 1 else {}
        return self._issuer.token(models=[MODEL, HELD], **soon)


def test_the_client_uploads_and_asks_alone_and_by_stream(served: Stack, issuer: Issuer) -> None:
    picture = encode(Image.new("RGB", (64, 64), (250, 0, 0)))
    with Client(served.target, token=issuer.token(models=[MODEL])) as client:
        assert client.classify(picture, MODEL).classes[0].label == "red"
        outcomes = list(client.map([picture] * 40, MODEL))
        assert [outcome.error for outcome in outcomes] == [None] * 40
        assert client.sent["by_stream"]
        with pytest.raises(PermissionDenied, match="this token may not call model 'held'"):
            client.classify(picture, HELD)


def test_a_client_whose_token_has_ended_is_told_what_to_do(served: Stack, issuer: Issuer, uuid: str) -> None:
    for streams in (False, True):
        with Client(served.target, token=issuer.token(models=[MODEL], exp=1), streams=streams) as client:
            for call in (lambda: client.classify(uuid, MODEL), lambda: client.upload(b"x")):
                with pytest.raises(Unauthenticated, match=r"Jwt is expired; .* a function that returns a fresh one"):
                    call()


def test_a_call_in_flight_survives_its_stream_whose_token_ends(served: Stack, issuer: Issuer, uuid: str) -> None:
    """One call waits for a batch of two until the stream under it ends; it is sent again with a fresh token."""
    source = Source(issuer)
    with Client(served.target, token=source, streams=True, timeout_seconds=60) as client:
        waits = client.submit_classify(uuid, HELD)
        assert source.asked.acquire(timeout=60)
        assert source.asked.acquire(timeout=60), "no second token is asked for"
        others = [client.submit_classify(uuid, HELD) for _ in range(2)]  # the call that was lost may count for one
        assert waits.result(60).classes
        for other in others:
            other.cancel()
        assert source.given == 2


def test_commands_take_a_tokens_file(served: Stack, issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(issuer.token(models=[MODEL]) + "\n")
    (tmp_path / "red.png").write_bytes(encode(Image.new("RGB", (64, 64), (250, 0, 0)), "PNG"))
    options = ("--target", served.target, "--token-file", str(tmp_path / "token"), "--model", MODEL)
    told = shoal(tmp_path, "classify", str(tmp_path / "red.png"), "--json", *options)
    assert (told.returncode, json.loads(told.stdout)["classes"][0]["label"]) == (0, "red")
    load = ("--images", str(tmp_path), "--duration", "1", "--concurrency", "2", "--processes", "2")
    told = shoal(tmp_path, "bench", "--json", *load, *options)
    assert told.returncode == 0, told.stderr


def console(stack: Stack, path: str, token: tuple[str, str], **headers: str) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{stack.target}{path}", headers=dict([token]) | headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def seen(stack: Stack, token: tuple[str, str], **headers: str) -> tuple[str, list[str]]:
    told = console(stack, "/v1/status", token, **headers)
    return told["owner"], [model["name"] for model in told["models"]]


def test_the_console_shows_a_token_the_models_that_it_may_call(served: Stack, issuer: Issuer) -> None:
    assert seen(served, issuer.bearer(models="*")) == ("alice", [HELD, MODEL])
    assert seen(served, issuer.bearer(models=[MODEL, "no such", 5, "a\r\nb"])) == ("alice", [MODEL])
    assert seen(served, issuer.bearer(models="tin* x")) == ("alice", [MODEL])
    assert seen(served, issuer.bearer(models=["x" * 3000, "y" * 3000, "*"])) == ("alice", []), "told up to 4 KiB"
    assert seen(served, PARTNER.bearer(sub="alice")) == ("guests", [HELD, MODEL])
    for nothing in (None, "", [], {"a": 1}, 5):
        assert seen(served, issuer.bearer(models=nothing), **{"x-shoal-token-models": "*"}) == ("alice", [])
    assert seen(served, PARTNER.bearer(), **{"x-shoal-token-models": "x"}) == ("guests", [HELD, MODEL])


def test_the_console_explains_an_owners_requests_to_its_tokens_alone(served: Stack, issuer: Issuer, uuid: str) -> None:
    post(served, f"/v1/models/{MODEL}:classify", {"image_uuid": uuid}, issuer)
    path = f"/v1/requests/{uuid}"
    assert console(served, path, issuer.bearer(models=[MODEL]))["requests"]
    assert not console(served, path, issuer.bearer(models=["other"]))["requests"], "of a model that it may not call"
    assert not console(served, path, PARTNER.bearer())["requests"]
    key = next(key for key in api_keys.load_keys(served.home.keys) if key.owner == "alice")
    assert console(served, path, ("x-api-key", key.key))["requests"]
