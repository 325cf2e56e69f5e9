"""Which paths of HTTP lead to which methods, as descriptors of protobuf that Envoy's transcoder reads.

They are those of the generated modules, with what ``option (google.api.http)`` would say beside each method.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2, descriptor_pb2, struct_pb2

from shoal.batching.v1 import stream_pb2
from shoal.batching.wire import STREAM
from shoal.v1 import inference_pb2, json_pb2, picture_body_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import FileDescriptor

VERBS: Final = {"classify": "Classify", "detect": "Detect", "segment": "Segment", "analyze": "Analyze"}
"""At the end of a path, to the method of ``shoal.v1.Inference``."""
MODELS_PATH: Final = "/v1/models/"
UPLOADS_PATH: Final = "/v1/uploads"
PICTURES_PATH: Final = "/v1/pictures"
INFERENCE, UPLOADS, PICTURES = "shoal.v1.Inference", "shoal.v1.Uploads", "shoal.v1.Pictures"
MODELS = "shoal.v1.Models"
V2_PATH: Final = "/v2/models/"
GETS: Final = {
    "Get": f"{MODELS_PATH}{{name}}",
    "Metadata": f"{V2_PATH}{{name}}",
    "Ready": f"{V2_PATH}{{name}}/ready",
}
"""Methods of ``shoal.v1.Models`` to the paths that lead there."""

_WHOLE: Final = "json"
"""The field of ``JsonMessage`` that takes the whole body."""
_PICTURE: Final = "picture"
_HTTP_OPTION: Final = 72295728
"""The field of ``google.protobuf.MethodOptions`` that is ``google.api.http``
(https://github.com/googleapis/googleapis/blob/master/google/api/annotations.proto)."""
_GET, _POST, _BODY, _ADDITIONAL = 2, 4, 7, 11
"""Fields of ``google.api.HttpRule``."""
_NOT_OF_A_PICTURE: Final = frozenset({"api_key", "image_uuid"})
"""Fields of ``ImageRequest`` that a call which brings its picture along has no use for."""


def path_of(method: str) -> str | None:
    """Where a method of ``shoal.v1.Inference`` is called; None for what is none."""
    verb = next((verb for verb, name in VERBS.items() if name == method), None)
    return verb and f"{MODELS_PATH}{{model_name}}:{verb}"


@cache
def descriptors() -> bytes:
    """A ``FileDescriptorSet`` of the services' unary methods: those that are sent something take JSON."""
    *before, api = _files(struct_pb2.DESCRIPTOR, json_pb2.DESCRIPTOR, stream_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR)
    api.dependency.append(json_pb2.DESCRIPTOR.name)
    for service in api.service:
        _keep_unary(service)
        for call in service.method:
            if service.name == MODELS.rpartition(".")[2]:
                call.options.MergeFromString(_text(_HTTP_OPTION, _text(_GET, GETS[call.name].encode())))
                continue
            own = f"/shoal.v1.{service.name}/{call.name}"
            _lead(call, path_of(call.name) or UPLOADS_PATH, _WHOLE, own)
            # As the message itself the body would lose what that has no field for: Envoy can't be told to refuse it.
            call.input_type = f".{json_pb2.JsonMessage.DESCRIPTOR.full_name}"
    return descriptor_pb2.FileDescriptorSet(file=[*before, api]).SerializeToString()


@cache
def picture_descriptors() -> bytes:
    """The same of ``shoal.v1.Pictures``: methods whose body is a picture, and whose query is the message's fields."""
    *before, api = _files(any_pb2.DESCRIPTOR, stream_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR)
    body = _http_body()
    api.dependency.append(body.name)
    api.message_type.append(_picture_call(api))
    inference = next(service for service in api.service if service.name == INFERENCE.rpartition(".")[2])
    _keep_unary(inference)
    inference.name = PICTURES.rpartition(".")[2]
    inference.method.add(name="Create", output_type=f".{inference_pb2.Picture.DESCRIPTOR.full_name}")
    for call in inference.method:
        _lead(call, path_of(call.name) or PICTURES_PATH, _PICTURE)
        call.input_type, call.client_streaming = ".shoal.v1.PictureCall", True
    return descriptor_pb2.FileDescriptorSet(file=[*before, body, api]).SerializeToString()


def _files(*files: FileDescriptor) -> Iterable[descriptor_pb2.FileDescriptorProto]:
    for each in files:
        file = descriptor_pb2.FileDescriptorProto()
        each.CopyToProto(file)
        yield file


def _keep_unary(service: descriptor_pb2.ServiceDescriptorProto) -> None:
    """Of ``Inference`` those that have a path: one without would take another's."""
    asked = service.name == INFERENCE.rpartition(".")[2]
    kept = [call for call in service.method if not call.name.endswith(STREAM) and (path_of(call.name) or not asked)]
    del service.method[:]
    service.method.extend(kept)


def _picture_call(api: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.DescriptorProto:
    """``ImageRequest`` with a picture in place of its uuid."""
    call = descriptor_pb2.DescriptorProto()
    call.CopyFrom(next(message for message in api.message_type if message.name == "ImageRequest"))
    kept = [field for field in call.field if field.name not in _NOT_OF_A_PICTURE]
    del call.field[:]
    call.field.extend(kept)
    call.name = picture_body_pb2.PictureCall.DESCRIPTOR.name
    part = picture_body_pb2.PictureCall.DESCRIPTOR.fields_by_name[_PICTURE]
    kind = descriptor_pb2.FieldDescriptorProto
    call.field.add(
        name=part.name,
        number=part.number,
        type=kind.TYPE_MESSAGE,
        label=kind.LABEL_OPTIONAL,
        type_name=".google.api.HttpBody",
    )
    return call


def _http_body() -> descriptor_pb2.FileDescriptorProto:
    """https://github.com/googleapis/googleapis/blob/master/google/api/httpbody.proto, which the transcoder knows."""
    kind = descriptor_pb2.FieldDescriptorProto
    message = descriptor_pb2.DescriptorProto(name="HttpBody")
    once, many = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED
    message.field.add(name="content_type", number=1, type=kind.TYPE_STRING, label=once)
    message.field.add(name="data", number=2, type=kind.TYPE_BYTES, label=once)
    message.field.add(name="extensions", number=3, type=kind.TYPE_MESSAGE, label=many, type_name=".google.protobuf.Any")
    return descriptor_pb2.FileDescriptorProto(
        name="google/api/httpbody.proto",
        package="google.api",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name],
        message_type=[message],
    )


def _lead(call: descriptor_pb2.MethodDescriptorProto, path: str, body: str, *others: str) -> None:
    """POST to any of the paths is the method, with the HTTP body as the field ``body`` of its message."""
    rule, *more = (_text(_POST, each.encode()) + _text(_BODY, body.encode()) for each in (path, *others))
    for each in more:
        rule += _text(_ADDITIONAL, each)
    call.options.MergeFromString(_text(_HTTP_OPTION, rule))


def _text(field: int, value: bytes) -> bytes:
    """A field of wire type 2 (https://protobuf.dev/programming-guides/encoding/)."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
