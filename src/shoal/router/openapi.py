"""The description of what JSON may ask (https://spec.openapis.org/oas/v3.1.0), from the descriptors of the protocol."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from shoal import __version__
from shoal.router.json_methods import GETS, MODELS, MODELS_PATH, PICTURES_PATH, UPLOADS_PATH, VERBS, path_of
from shoal.service.identity import HEADER
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

_SERVICES = pb.DESCRIPTOR.services_by_name
_PICTURE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
_TYPES: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_INT32: {"type": "integer"},
    # As protobuf's JSON has them.
    FieldDescriptor.TYPE_UINT64: {"type": "string", "pattern": "^[0-9]+$"},
}
_STATUS: Final = {
    "type": "object",
    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "details": {"type": "array"}},
    "required": ["code", "message"],
}


@cache
def document() -> dict[str, Any]:
    """All paths, and the messages that they need."""
    found = _Schemas()
    paths: dict[str, Any] = {}
    for name in VERBS.values():
        call = _SERVICES["Inference"].methods_by_name[name]
        paths[str(path_of(name))] = {"post": found.asked(name.lower(), call.input_type, call.output_type)}
    create = _SERVICES["Uploads"].methods_by_name["Create"]
    paths[UPLOADS_PATH] = {"post": found.sent("createUploads", create.input_type, create.output_type)}
    paths[PICTURES_PATH] = {"post": found.picture("createPicture", pb.DESCRIPTOR.message_types_by_name["Picture"])}
    for method in _SERVICES[MODELS.rpartition(".")[2]].methods:
        operation = found.operation(f"model{method.name}", method.output_type)
        paths[GETS[method.name]] = {"get": operation | {"parameters": [_in_path("name")]}}
    paths[MODELS_PATH.rstrip("/")] = {"get": _LIST}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shoal", "version": __version__, "summary": "Asks models about pictures."},
        "paths": paths,
        "components": {
            "schemas": {"Status": _STATUS, **found.schemas},
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": HEADER}},
        },
        "security": [{"key": []}],
    }


class _Schemas:
    """Operations, and the schemas that they refer to."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def operation(self, name: str, answer: Descriptor) -> dict[str, Any]:
        """One that answers a message of the kind ``answer``."""
        return _operation(name, self._reference(answer))

    def sent(self, name: str, asked: Descriptor, answer: Descriptor) -> dict[str, Any]:
        """One that is sent a message."""
        body = {"required": True, "content": {"application/json": {"schema": self._reference(asked)}}}
        return self.operation(name, answer) | {"requestBody": body}

    def picture(self, name: str, answer: Descriptor) -> dict[str, Any]:
        """One that is sent a picture."""
        return self.operation(name, answer) | {"requestBody": {"required": True, "content": _pictures()}}

    def asked(self, name: str, asked: Descriptor, answer: Descriptor) -> dict[str, Any]:
        """One that is sent a message, or a picture with the message's fields as the query."""
        operation = self.sent(name, asked, answer)
        operation["requestBody"]["content"] |= _pictures()
        query = [field for field in asked.fields if field.name not in {"api_key", "image_uuid", "model_name"}]
        beside = [each for field in query for each in self._in_query(field)]
        return operation | {"parameters": [_in_path("model_name"), *beside]}

    def _in_query(self, field: FieldDescriptor, before: str = "") -> Iterator[dict[str, Any]]:
        """A message's fields have their names behind its own; many messages don't fit in a query."""
        if field.message_type is None:
            yield {"name": f"{before}{field.name}", "in": "query", "schema": self._value(field)}
        elif not field.is_repeated:
            for each in field.message_type.fields:
                yield from self._in_query(each, f"{before}{field.name}.")

    def _reference(self, kind: Descriptor) -> dict[str, Any]:
        if kind.name not in self.schemas:
            self.schemas[kind.name] = {"type": "object", "additionalProperties": False}
            self.schemas[kind.name]["properties"] = {field.name: self._field(field) for field in kind.fields}
        return {"$ref": f"#/components/schemas/{kind.name}"}

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        value = self._value(field)
        return {"type": "array", "items": value} if field.is_repeated else value

    def _value(self, field: FieldDescriptor) -> dict[str, Any]:
        if field.enum_type is not None:
            return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
        if field.message_type is not None:
            return self._reference(field.message_type)
        return _TYPES[field.type]


def _operation(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    refused = {"$ref": "#/components/schemas/Status"}
    return {
        "operationId": name,
        "responses": {"200": _response("the answer", answer), "default": _response("a refusal", refused)},
    }


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _pictures() -> dict[str, Any]:
    return {kind: {} for kind in _PICTURE_TYPES}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_LISTED: Final = {
    "name": {"type": "string"},
    "pool": {"type": "string"},
    "state": {"enum": ["served", "unserved"]},
    "task": {"type": "string"},
    "versions": {"type": "array", "items": {"type": "integer"}},
    "labels": {"type": "integer"},
}
_LIST: Final = _operation(
    "listModels",
    {
        "type": "object",
        "properties": {"models": {"type": "array", "items": {"type": "object", "properties": _LISTED}}},
    },
)
