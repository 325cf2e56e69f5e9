"""Calls with a picture as the body: what is stored, what is refused, and what hostile callers get."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import shutil
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from shoal.service import api_keys
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

RED = encode(Image.new("RGB", (64, 64), (250, 0, 0)))
MOST = 300_000
CLASSIFY = "/v1/models/tiny:classify"


@dataclass(frozen=True)
class Door:
    stack: Stack

    def post(self, path: str, body: Any, *, chunked: bool = False, **headers: str) -> tuple[int, Any]:
        """The status and the JSON; ``body`` may be anything that http.client sends."""
        told = {"content-type": "image/jpeg", "x-api-key": self.stack.api_key}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(http.client.HTTPConnection(self.stack.target, timeout=60)) as connection:
            with contextlib.suppress(ConnectionError):  # it is cut while it is sent; the answer is there
                connection.request("POST", path, body, told, encode_chunked=chunked)
            answer = connection.getresponse()
            assert answer.headers["content-type"] == "application/json"
            return answer.status, json.loads(answer.read())

    @property
    def stored(self) -> set[str]:
        return {path.name for path in self.stack.home.objects.rglob("*.jpg")}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    service = f"object_store: {{max_image_bytes: {MOST}}}"
    with running_stack(tmp_path_factory.mktemp("door") / "home", models=add_tiny_classifier, service=service) as stack:
        yield Door(stack)


def test_a_picture_is_stored_and_may_be_asked_about(door: Door) -> None:
    status, told = door.post("/v1/pictures", RED)
    assert (status, told.keys()) == (200, {"image_uuid"})
    (kept,) = door.stack.home.objects.rglob(f"{told['image_uuid']}.jpg")
    assert (kept.parent.name, kept.read_bytes()) == ("local", RED)
    asked = json.dumps(told)
    assert door.post(CLASSIFY, asked, content_type="application/json")[1]["classes"][0]["label"] == "red"


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "image/jpeg; x=y"]
)
def test_one_call_stores_and_asks(door: Door, kind: str) -> None:
    status, told = door.post(f"{CLASSIFY}?top_k=1", RED, content_type=kind)
    assert (status, [each["label"] for each in told["classes"]]) == (200, ["red"])
    assert f"{told['image_uuid']}.jpg" in door.stored


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_other_formats_are_pictures_too(door: Door, form: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (0, 250, 0)).save(file, form)
    assert door.post(CLASSIFY, file.getvalue())[1]["classes"][0]["label"] == "green"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("way", [["--data-binary", "@-"], ["-F", "picture=@-"], ["-T", "-", "-X", "POST"]])
def test_curl_in_one_line(door: Door, way: list[str]) -> None:
    kind = ["-H", "content-type: image/jpeg"] if "-T" in way else []
    command = ["curl", "-s", *way, *kind, "-H", f"x-api-key: {door.stack.api_key}", f"{door.stack.target}{CLASSIFY}"]
    done = subprocess.run(command, input=RED, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["classes"][0]["label"] == "red"


def chunks(size: int) -> Iterator[bytes]:
    yield RED
    for _ in range(size // 10_000):
        yield bytes(10_000)


@pytest.mark.parametrize("path", [CLASSIFY, "/v1/pictures"])
@pytest.mark.parametrize("declared", [True, False])
def test_the_largest_is_taken_and_a_larger_one_is_cut_and_not_stored(door: Door, path: str, declared: bool) -> None:
    fits = RED + bytes(MOST - len(RED))
    assert door.post(path, fits)[0] == 200
    before = door.stored
    large: Any = fits + b"\0" if declared else chunks(20 * MOST)
    status, told = door.post(path, large, chunked=not declared)
    assert (status, told["code"]) == (413, 8)
    assert told["message"] == f"a picture may have {MOST} bytes (object_store.max_image_bytes)"
    assert door.stored == before


REFUSED = {
    "text": (CLASSIFY, b"hello", {}, 400, 3, "no JPEG, PNG or WebP picture: it begins with b'hello'"),
    "nothing": (CLASSIFY, b"", {}, 400, 3, "it is empty"),
    "a damaged header": (CLASSIFY, RED[:20] + b"no picture", {}, 400, 3, "it ends inside its header"),
    "more pixels than any pool takes": (
        CLASSIFY, RED.replace(b"\0\x40\0\x40", b"\xff\xff\xff\xff"), {}, 400, 3, "too large: 65535 x 65535 pixels",
    ),
    "json": ("/v1/pictures", b"{}", {}, 400, 3, "it begins with b'{}'"),
    "a form of two": (
        CLASSIFY, b"--a\r\n\r\nx\r\n--a\r\n\r\ny\r\n--a--", {"content_type": "multipart/form-data; boundary=a"},
        400, 3, "it has 2",
    ),
    "bad key": (CLASSIFY, RED, {"x_api_key": "x" * 30}, 401, 16, "'shoal keys create' makes one"),
    "no key": ("/v1/pictures", RED, {"x_api_key": "-"}, 401, 16, "'shoal keys create' makes one"),
    "unknown model": ("/v1/models/nope:classify", RED, {}, 404, 5, "no model 'nope'"),
    "unknown field": (f"{CLASSIFY}?topk=1", RED, {}, 400, 3, '"topk"'),
    "a uuid beside it": (f"{CLASSIFY}?image_uuid=1", RED, {}, 400, 3, '"image_uuid"'),
    "html": ("/v1/pictures", RED, {"content_type": "text/html"}, 415, 3, "/v1/models/MODEL:classify"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused_is_told_why_and_is_not_stored(door: Door, case: Any) -> None:
    path, body, headers, status, code, text = case
    before = door.stored
    heard, told = door.post(path, body, **headers)
    assert (heard, told["code"]) == (status, code), told
    assert text in told["message"]
    assert door.stored == before


def test_a_key_of_other_models_stores_nothing(door: Door) -> None:
    key = api_keys.create(door.stack.home.keys, "carol", models=("else*",)).key
    before = door.stored
    while (heard := door.post(CLASSIFY, RED, x_api_key=key))[0] == 401:
        pass  # the router hasn't seen it yet
    assert (heard[0], heard[1]["code"]) == (403, 7)
    assert door.stored == before


def test_a_keys_rate_bounds_pictures(door: Door) -> None:
    key = api_keys.create(door.stack.home.keys, "local", requests_per_second=0.05).key
    while (heard := door.post("/v1/pictures", RED, x_api_key=key))[0] == 401:
        pass
    assert heard[0] == 200
    before = door.stored
    heard = door.post("/v1/pictures", RED, x_api_key=key)
    assert (heard[0], heard[1]["code"]) == (429, 8)
    assert door.stored == before


def test_an_owner_cannot_ask_about_the_picture_of_another(door: Door) -> None:
    key = api_keys.create(door.stack.home.keys, "dora").key
    told = door.post("/v1/pictures", RED)[1]
    while (heard := door.post(CLASSIFY, json.dumps(told), content_type="application/json", x_api_key=key))[0] == 401:
        pass
    assert (heard[0], heard[1]["code"]) == (404, 5)


def head(door: Door, path: str, *lines: str) -> bytes:
    told = (f"POST {path} HTTP/1.1", "host: x", f"x-api-key: {door.stack.api_key}", "content-type: image/jpeg", *lines)
    return "\r\n".join((*told, "", "")).encode()


async def test_a_caller_who_leaves_halfway_leaves_nothing_behind(door: Door) -> None:
    """Halfway: a worker has begun to take it in."""
    before = door.stored
    with socket.create_connection(door.stack.target.split(":")) as caller:  # type: ignore[arg-type]
        caller.sendall(head(door, "/v1/pictures", "content-length: 1000") + RED[:100])
        await door.stack.until_metric("worker-default-1", "shoal_worker_intake_bytes", 100)
    await door.stack.until_metric("worker-default-1", "shoal_worker_intake_bytes", 0)
    assert door.stored == before


def test_a_body_that_never_ends_ends_with_the_deadline(door: Door) -> None:
    before = door.stored
    with socket.create_connection(door.stack.target.split(":"), timeout=60) as caller:  # type: ignore[arg-type]
        caller.sendall(head(door, CLASSIFY, "content-length: 1000", "grpc-timeout: 300m") + RED[:100])
        assert caller.recv(100).startswith(b"HTTP/1.1 408 ")
    assert door.stored == before


def test_many_at_once_each_get_their_own_answer(door: Door) -> None:
    colours = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}
    pictures = [(name, encode(Image.new("RGB", (64, 64), colour))) for name, colour in colours.items()] * 8

    async def ask() -> list[Any]:
        return list(await asyncio.gather(*(asyncio.to_thread(door.post, CLASSIFY, picture) for _, picture in pictures)))

    answers = asyncio.run(ask())
    assert [told["classes"][0]["label"] for _, told in answers] == [name for name, _ in pictures]
    assert len({told["image_uuid"] for _, told in answers}) == len(pictures)
