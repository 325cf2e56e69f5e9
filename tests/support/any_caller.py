"""Every kind of caller that the router takes, each asking about a picture in its own way."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from shoal.client import Client
from shoal.errors import ShoalError
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CLASSIFY = "/shoal.v1.Inference/Classify"
PAGE = "https://example.org"
"""Where a browser's callers come from."""
PATIENCE = 60.0
_FETCH = """
const [url, init, patience] = JSON.parse(process.argv[1]);
try {
  const answer = await fetch(url, { ...init, signal: AbortSignal.timeout(patience) });
  console.log(JSON.stringify({ status: answer.status, headers: [...answer.headers], body: await answer.text() }));
} catch { console.log(JSON.stringify({ status: 0, headers: [], body: "" })); }
"""


@dataclass(frozen=True)
class Asked:
    """A call."""

    target: str
    key: str
    model: str
    uuid: str
    picture: Path
    """The same picture, for callers who bring it along."""
    deadline: float | None = None
    """Seconds that the service is told."""
    patience: float = PATIENCE
    """Seconds until the caller hangs up."""
    by_token: bool = False
    """Whether the caller has the token that ``TOKENS`` has for its key, in the key's place."""

    @property
    def credentials(self) -> dict[str, str]:
        """Headers."""
        if self.by_token:
            return {"authorization": f"Bearer {TOKENS.get(self.key, self.key)}"}
        return {"x-api-key": self.key}


@dataclass(frozen=True)
class Heard:
    """What came of it."""

    code: int
    """gRPC's; -1: the caller hung up."""
    message: str = ""
    label: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP's, or gRPC's trailers."""


def grpcio(asked: Asked) -> Heard:
    return _by_grpc(asked, pb.ImageRequest, pb.ClassifyReply)


def gzip(asked: Asked) -> Heard:
    return _by_grpc(asked, pb.ImageRequest, pb.ClassifyReply, compression=grpc.Compression.Gzip)


def reflection(asked: Asked) -> Heard:
    """Knows no proto, as grpcurl: asks the service for it, with the service's own key."""
    with grpc.insecure_channel(asked.target) as plain:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(grpc.intercept_channel(plain, _Keyed(REFLECTING[0]))))
        method = pool.FindServiceByName("shoal.v1.Inference").methods_by_name["Classify"]
        kinds = [message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type)]
    return _by_grpc(asked, *kinds)


TOKENS: dict[str, str] = {}
"""By the key whose rights it gives."""


def token(asked: Asked) -> Heard:
    return grpcio(replace(asked, by_token=True))


def token_json(asked: Asked) -> Heard:
    return json_1(replace(asked, by_token=True))


REFLECTING = [""]
"""The key with which ``reflection`` asks for the proto."""


def token_sdk(asked: Asked) -> Heard:
    return sdk(replace(asked, by_token=True))


def sdk(asked: Asked) -> Heard:
    key, token = (None, TOKENS.get(asked.key, asked.key)) if asked.by_token else (asked.key, None)
    with Client(asked.target, api_key=key, token=token) as client:
        call = client.submit_classify(asked.uuid, asked.model, timeout_seconds=asked.deadline or PATIENCE)
        try:
            return Heard(0, label=call.result(asked.patience).classes[0].label)
        except FutureTimeout:
            call.cancel()
            return Heard(-1)
        except ShoalError as error:
            return Heard(int(error.code), str(error))


def json_1(asked: Asked) -> Heard:
    return _curl(asked, "--http1.1", "--json", json.dumps({"image_uuid": asked.uuid}))


def json_2(asked: Asked) -> Heard:
    return _curl(asked, "--http2-prior-knowledge", "--json", json.dumps({"image_uuid": asked.uuid}))


def body(asked: Asked) -> Heard:
    return _curl(asked, "--data-binary", f"@{asked.picture}")


def fetch(asked: Asked) -> Heard:
    headers = _headers(asked) | {"content-type": "application/json", "origin": PAGE}
    init = {"method": "POST", "headers": headers, "body": json.dumps({"image_uuid": asked.uuid})}
    told = json.dumps([_url(asked), init, round(asked.patience * 1000)])
    command = ["node", "--input-type=module", "-e", _FETCH, told]
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
    answer = json.loads(done.stdout)
    return _of_http(answer["status"], dict(answer["headers"]), answer["body"].encode())


def grpc_web(asked: Asked) -> Heard:
    message = pb.ImageRequest(api_key=asked.key, image_uuid=asked.uuid, model_name=asked.model).SerializeToString()
    headers = _headers(asked) | {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": PAGE}
    data = b"\0" + struct.pack(">I", len(message)) + message
    request = urllib.request.Request(f"http://{asked.target}{CLASSIFY}", data, headers | {"x-model-name": asked.model})
    try:
        with urllib.request.urlopen(request, timeout=asked.patience) as answer:
            return _of_web({k.lower(): v for k, v in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as error:
        return _of_web({k.lower(): v for k, v in error.headers.items()}, b"")
    except TimeoutError:
        return Heard(-1)


KINDS: dict[str, Callable[[Asked], Heard]] = {
    each.__name__: each
    for each in (grpcio, gzip, sdk, reflection, json_1, json_2, body, fetch, grpc_web, token, token_json, token_sdk)
}
OF_HTTP = {json_1, json_2, body, fetch, token_json}
"""What their refusals are is HTTP's."""
OF_PAGES = {fetch, grpc_web}
OF_TOKENS = {token, token_json, token_sdk}
_BY_CURL = {json_1, json_2, body, token_json}
MISSING = (_BY_CURL if shutil.which("curl") is None else set()) | (set() if shutil.which("node") else {fetch})


def _by_grpc(asked: Asked, request: type[Any], reply: type[Any], **options: Any) -> Heard:
    own = "" if asked.by_token else asked.key
    message = request(api_key=own, image_uuid=asked.uuid, model_name=asked.model)
    metadata = (*asked.credentials.items(), ("x-model-name", asked.model))
    with grpc.insecure_channel(asked.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = channel.unary_unary(CLASSIFY, request.SerializeToString, reply.FromString)
        call = method.future(message, timeout=asked.deadline or PATIENCE, metadata=metadata, **options)
        try:
            return Heard(0, label=call.result(asked.patience).classes[0].label)
        except grpc.FutureTimeoutError:
            call.cancel()
            return Heard(-1)
        except grpc.RpcError:
            trailers = {key: str(value) for key, value in call.trailing_metadata() or ()}
            return Heard(call.code().value[0], call.details() or "", headers=trailers)


class _Keyed(grpc.StreamStreamClientInterceptor):
    def __init__(self, key: str) -> None:
        self._key = key

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=(("x-api-key", self._key),)), requests)


def _curl(asked: Asked, *arguments: str) -> Heard:
    headers = [each for name, value in _headers(asked).items() for each in ("-H", f"{name}: {value}")]
    command = ["curl", "-s", "-i", "--max-time", str(asked.patience), *headers, *arguments, _url(asked)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)
    if done.returncode == 92:  # curl 7 loses an HTTP/2 answer that comes before its body has left
        return _curl(asked, *arguments)
    if done.returncode == 28:  # curl's own time limit
        return Heard(-1)
    assert done.stdout, done
    head, _, content = done.stdout.rpartition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n\r\n")[-1].splitlines()
    told = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return _of_http(int(status.split()[1]), told, content)


def _url(asked: Asked) -> str:
    return f"http://{asked.target}/v1/models/{asked.model}:classify"


def _headers(asked: Asked) -> dict[str, str]:
    deadline = {} if asked.deadline is None else {"grpc-timeout": f"{math.ceil(asked.deadline * 1e6)}u"}
    return {**asked.credentials, **deadline}


def _of_http(status: int, headers: dict[str, str], content: bytes) -> Heard:
    if status == 0:
        return Heard(-1)
    told = json.loads(content)
    assert headers["content-type"] == "application/json"
    if status == 200:
        return Heard(0, label=told["classes"][0]["label"], headers=headers)
    assert {"code", "message", "details"} == told.keys()
    return Heard(told["code"], told["message"], headers=headers)


def _of_web(headers: dict[str, str], content: bytes) -> Heard:
    """Frames: a message, then the trailers; where there is no message, the trailers may be headers."""
    label, trailers = "", dict(headers)
    while len(content) >= 5:
        kind, size = struct.unpack_from(">BI", content)
        frame, content = content[5 : 5 + size], content[5 + size :]
        if kind & 0x80:
            trailers |= dict(line.split(":", 1) for line in frame.decode().splitlines() if ":" in line)
        else:
            label = pb.ClassifyReply.FromString(frame).classes[0].label
    message = urllib.parse.unquote(trailers.get("grpc-message", ""))
    return Heard(int(trailers["grpc-status"]), message, label, headers)


def bring(asked: Asked, content: bytes) -> Asked:
    """The same about another picture, stored by the SDK and beside it."""
    path = asked.picture.with_name("other.jpg")
    path.write_bytes(content)
    with Client(asked.target, api_key=asked.key) as client:
        return replace(asked, uuid=str(client.upload(content)), picture=path)
